#include "store/base/thread.h"

#include <gtest/gtest.h>

namespace cairn {
namespace {

TEST(StartThread, RunsWhatItIsGivenOrSaysThatThereIsNone) {
  int runs = 0;
  {
    const NoThreads none;
    EXPECT_TRUE(absl::IsResourceExhausted(StartThread([&] { ++runs; }).status()));
  }
  EXPECT_EQ(runs, 0);
  absl::StatusOr<std::thread> thread = StartThread([&] { ++runs; });
  ASSERT_TRUE(thread.ok()) << thread.status();
  thread->join();
  EXPECT_EQ(runs, 1);
}

}  // namespace
}  // namespace cairn
