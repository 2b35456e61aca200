#include "store/base/mutex.h"

#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace cairn {
namespace {

TEST(MutexTest, AwaitSeesWhatAnyUnlockMadeTrue) {
  Mutex mutex;
  int turn = 0;
  // Each waits for the other's change, so an unlock that wakes nobody would end in a hang.
  std::thread other([&] {
    for (int i = 0; i < 1000; ++i) {
      const MutexLock lock(&mutex);
      mutex.Await([&] { return turn == 2 * i + 1; });
      ++turn;
    }
  });
  for (int i = 0; i < 1000; ++i) {
    const MutexLock lock(&mutex);
    mutex.Await([&] { return turn == 2 * i; });
    ++turn;
  }
  other.join();
  EXPECT_EQ(turn, 2000);
}

TEST(MutexTest, AChangeMadeBeforeOnesOwnAwaitIsSeenByOthers) {
  Mutex mutex;
  bool asked = false;
  bool answered = false;
  std::thread other([&] {
    const MutexLock lock(&mutex);
    mutex.Await([&] { return asked; });
    answered = true;
  });
  {
    const MutexLock lock(&mutex);
    asked = true;
    mutex.Await([&] { return answered; });
  }
  other.join();
  EXPECT_TRUE(answered);
}

TEST(MutexTest, AwaitWithTimeoutSaysWhetherItBecameTrue) {
  Mutex mutex;
  bool set = false;
  {
    const MutexLock lock(&mutex);
    EXPECT_FALSE(mutex.AwaitWithTimeout([&] { return set; }, absl::Nanoseconds(1)));
    EXPECT_TRUE(mutex.AwaitWithTimeout([] { return true; }, absl::ZeroDuration()));
  }
  std::thread other([&] {
    const MutexLock lock(&mutex);
    set = true;
  });
  {
    const MutexLock lock(&mutex);
    EXPECT_TRUE(mutex.AwaitWithTimeout([&] { return set; }, absl::InfiniteDuration()));
  }
  other.join();
}

TEST(MutexTest, WhatIsTrueForManyIsPassedOnFromOneToTheNext) {
  Mutex mutex;
  int left = 0;
  std::vector<std::thread> others;
  for (int i = 0; i < 8; ++i) {
    others.emplace_back([&] {
      const MutexLock lock(&mutex);
      mutex.Await([&] { return left > 0; });
      --left;
    });
  }
  {
    const MutexLock lock(&mutex);
    left = 8;  // one unlock for all
  }
  for (std::thread& other : others) other.join();
  EXPECT_EQ(left, 0);
}

TEST(MutexTest, NobodyIsWokenInVain) {
  Mutex mutex;
  bool set = false;
  std::thread::id waiting;
  int own_calls = 0, other_calls = 0;
  std::thread other([&] {
    const MutexLock lock(&mutex);
    waiting = std::this_thread::get_id();
    mutex.Await([&] {
      ++(std::this_thread::get_id() == waiting ? own_calls : other_calls);
      return set;
    });
  });
  while (true) {
    const MutexLock lock(&mutex);
    if (other_calls < 1000) continue;
    set = true;
    break;
  }
  other.join();
  // Once before it waits and once behind it, unless the system wakes it for no reason.
  EXPECT_LT(own_calls, 20);
}

TEST(MutexTest, AChangeMadeBeforeAWaitForASignalIsSeenByOthers) {
  Mutex mutex;
  CondVar signal;
  bool asked = false;
  bool answered = false;
  std::thread other([&] {
    const MutexLock lock(&mutex);
    mutex.Await([&] { return asked; });
    answered = true;
    signal.Signal();
  });
  {
    const MutexLock lock(&mutex);
    asked = true;
    while (!answered) signal.Wait(&mutex);
  }
  other.join();
  EXPECT_TRUE(answered);
}

}  // namespace
}  // namespace cairn
