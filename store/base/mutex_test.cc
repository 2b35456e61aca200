#include "store/base/mutex.h"

#include <thread>

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

}  // namespace
}  // namespace cairn
