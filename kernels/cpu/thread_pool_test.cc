// A loop's tasks run once each, whoever runs them, and a loop ends when they have: not when every
// worker has come.
#include "kernels/cpu/thread_pool.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <latch>
#include <vector>

namespace cairn::kernels {
namespace {

TEST(ThreadPool, RunsEachTaskOnceEveryTime) {
  ThreadPool pool(4);
  for (int round = 0; round < 500; ++round) {
    const int tasks = round % 17;
    std::vector<std::atomic<int>> seen(17);
    pool.Run(tasks, [&](int64_t i) { ++seen[static_cast<size_t>(i)]; });
    for (int i = 0; i < 17; ++i) ASSERT_EQ(seen[static_cast<size_t>(i)].load(), i < tasks ? 1 : 0);
  }
}

// Each task waits for the others, so that all threads must take part, in every loop anew.
TEST(ThreadPool, EveryWorkerEntersALoopThatLasts) {
  ThreadPool pool(4);
  for (int round = 0; round < 200; ++round) {
    std::latch all(pool.threads());
    pool.Run(pool.threads(), [&](int64_t) { all.arrive_and_wait(); });
  }
}

// A forked process has the pool but none of its workers.
TEST(ThreadPoolDeathTest, ALoopEndsThoughNoWorkerEnters) {
  ThreadPool pool(3);
  const auto run = [&pool] {
    int tasks = 0;
    for (int round = 0; round < 3; ++round) pool.Run(5, [&](int64_t) { ++tasks; });
    _exit(tasks);
  };
  EXPECT_EXIT(run(), testing::ExitedWithCode(15), "");
}

}  // namespace
}  // namespace cairn::kernels
