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
      ASSERT_FALSE(pool.TryRun([&] {
        held.wait();
        ++ran;
      })) << i;
    }
    EXPECT_TRUE(pool.TryRun([] {}));
    pool.Run([&] { ++ran; });  // never refused
    release.set_value();
  }
  EXPECT_EQ(ran, 4);
}

TEST(WorkerPool, WithoutAQueueOnlyAFreeThreadTakes) {
  WorkerPool pool({.threads_max = 1, .queue_max = 0});
  std::promise<void> began, release, after;
  ASSERT_FALSE(pool.TryRun([&] {
    began.set_value();
    release.get_future().wait();
  }));
  began.get_future().wait();
  EXPECT_TRUE(pool.TryRun([] {}));
  release.set_value();
  // Idle only when its job is over: until then it is rightly refused.
  while (pool.TryRun([&] { after.set_value(); })) std::this_thread::yield();
  after.get_future().wait();
}

// One thread that is held up, and jobs of 100 ms each on a fake clock before that.
struct BusyPool {
  BusyPool() : pool({.threads_max = 1, .queue_max = 8, .clock = &clock}) {
    for (int i = 0; i < 3; ++i) Job([&] { clock.Advance(absl::Milliseconds(100)); });
    std::promise<void> began;
    EXPECT_FALSE(pool.TryRun([&] {
      began.set_value();
      release.get_future().wait();
    }));
    began.get_future().wait();
  }
  // Returns when the thread has counted it.
  void Job(const std::function<void()>& job) {
    EXPECT_FALSE(pool.TryRun(job));
    std::promise<void> after;
    EXPECT_FALSE(pool.TryRun([&] { after.set_value(); }));
    after.get_future().wait();
  }
  FakeClock clock;
  std::promise<void> release;
  WorkerPool pool;
};

TEST(WorkerPool, RefusesAtOnceWhoWouldWaitTooLongAndSaysWhenToComeAgain) {
  BusyPool busy;
  const auto nothing = [] {};
  const auto at_once = busy.pool.TryRun(nothing, absl::Milliseconds(1));
  ASSERT_TRUE(at_once.has_value());
  EXPECT_GT(*at_once, absl::Milliseconds(1));
  EXPECT_LT(*at_once, absl::Milliseconds(100));
  EXPECT_FALSE(busy.pool.TryRun(nothing, absl::Milliseconds(100)));
  EXPECT_FALSE(busy.pool.TryRun(nothing, absl::Milliseconds(200)));
  // Now two wait before it.
  const auto later = busy.pool.TryRun(nothing, *at_once);
  ASSERT_TRUE(later.has_value());
  EXPECT_DOUBLE_EQ(absl::FDivDuration(*later, *at_once), 3);
  busy.release.set_value();
}

TEST(WorkerPool, ABlockedThreadDoesNotHoldUpOthers) {
  WorkerPool pool({.threads_max = 4, .queue_max = 8});
  std::promise<void> release;
  const std::shared_future<void> held = release.get_future().share();
  for (int i = 0; i < 3; ++i) ASSERT_FALSE(pool.TryRun([held] { held.wait(); }));
  for (int i = 0; i < 20; ++i) {
    std::promise<void> done;
    ASSERT_FALSE(pool.TryRun([&] { done.set_value(); }));
    done.get_future().wait();
  }
  release.set_value();
}

}  // namespace
}  // namespace cairn::cache
