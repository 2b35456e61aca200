// Goal: a pool takes no more than it may, runs what it took, and its destructor waits for it.
#include "cache/service/worker_pool.h"

#include <atomic>
#include <future>

#include "gtest/gtest.h"

namespace cairn::cache {
namespace {

TEST(WorkerPool, RefusesBeyondThreadsAndQueue) {
  std::promise<void> release;
  const std::shared_future<void> held = release.get_future().share();
  std::atomic<int> ran{0};
  {
    WorkerPool pool({.threads_max = 2, .queue_max = 1});
    for (int i = 0; i < 3; ++i) {
      ASSERT_TRUE(pool.TryRun([&] {
        held.wait();
        ++ran;
      })) << i;
    }
    EXPECT_FALSE(pool.TryRun([] {}));
    pool.Run([&] { ++ran; });  // never refused
    release.set_value();
  }
  EXPECT_EQ(ran, 4);
}

TEST(WorkerPool, WithoutAQueueOnlyAFreeThreadTakes) {
  WorkerPool pool({.threads_max = 1, .queue_max = 0});
  std::promise<void> began, release, after;
  ASSERT_TRUE(pool.TryRun([&] {
    began.set_value();
    release.get_future().wait();
  }));
  began.get_future().wait();
  EXPECT_FALSE(pool.TryRun([] {}));
  release.set_value();
  // Idle only when its job is over: until then it is rightly refused.
  while (!pool.TryRun([&] { after.set_value(); })) std::this_thread::yield();
  after.get_future().wait();
}

TEST(WorkerPool, ABlockedThreadDoesNotHoldUpOthers) {
  WorkerPool pool({.threads_max = 4, .queue_max = 8});
  std::promise<void> release;
  const std::shared_future<void> held = release.get_future().share();
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(pool.TryRun([held] { held.wait(); }));
  for (int i = 0; i < 20; ++i) {
    std::promise<void> done;
    ASSERT_TRUE(pool.TryRun([&] { done.set_value(); }));
    done.get_future().wait();
  }
  release.set_value();
}

}  // namespace
}  // namespace cairn::cache
