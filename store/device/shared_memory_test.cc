// Goal: shared memory cannot be shrunk under a reader, nor written by one.
#include "store/device/shared_memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

namespace cairn::store {
namespace {

TEST(SharedMemoryTest, IsSealedAndReadableByOthersOnly) {
  auto memory = SharedMemory::Create("arena", {.bytes = 10'000});
  ASSERT_TRUE(memory.ok()) << memory.status();
  EXPECT_EQ(memory->size(), 12'288u);
  memory->writable()[12'287] = 9;
  EXPECT_NE(::ftruncate(memory->descriptor(), 4096), 0);
  EXPECT_NE(::ftruncate(memory->descriptor(), 1 << 20), 0);
  EXPECT_EQ(::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, memory->descriptor(), 0),
            MAP_FAILED);
  auto reader = SharedMemory::MapReadOnly(FileDescriptor::Duplicate(memory->descriptor()), 12'288);
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_EQ(reader->bytes()[12'287], 9);
  EXPECT_TRUE(reader->writable().empty());
  memory->writable()[0] = 3;  // our own mapping stays writable
  EXPECT_EQ(reader->bytes()[0], 3);
}

TEST(SharedMemoryTest, AnotherSizeOrUnsealedMemoryIsRefused) {
  auto memory = SharedMemory::Create("staging", {.bytes = 8192, .readers_only = false});
  ASSERT_TRUE(memory.ok()) << memory.status();
  const auto map = [](int fd, uint64_t bytes) {
    return SharedMemory::MapReadOnly(FileDescriptor::Duplicate(fd), bytes).status().code();
  };
  EXPECT_EQ(map(memory->descriptor(), 8192), absl::StatusCode::kOk);
  EXPECT_EQ(map(memory->descriptor(), 12'288), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(map(memory->descriptor(), 0), absl::StatusCode::kInvalidArgument);
  const FileDescriptor open(::memfd_create("open", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(::ftruncate(open.get(), 8192), 0);
  EXPECT_EQ(map(open.get(), 8192), absl::StatusCode::kInvalidArgument);
}

TEST(SharedMemoryTest, MoreThanTheMachineHasIsRefusedByName) {
  const auto memory = SharedMemory::Create("huge", {.bytes = 1ull << 50});
  EXPECT_EQ(memory.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(memory.status().message()), ::testing::HasSubstr("1125899906842624"));
  EXPECT_EQ(SharedMemory::Create("none", {.bytes = 0}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(SharedMemoryTest, TooFewHugePagesAreRefusedWithWhatToReserve) {
  const auto memory =
      SharedMemory::Create("arena", {.bytes = (1ull << 40) - 1, .huge_pages = true});
  EXPECT_EQ(memory.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(memory.status().message()),
              ::testing::AllOf(::testing::HasSubstr("these are 524288 of 2 MiB"),
                               ::testing::HasSubstr("vm.nr_hugepages")));
}

TEST(SharedMemoryTest, InHugePagesItIsAsElsewhere) {
  const uint64_t free = FreeHugePageBytes();
  if (free < 2 * kHugePageBytes) GTEST_SKIP() << "needs two free huge pages: vm.nr_hugepages";
  auto memory = SharedMemory::Create("arena", {.bytes = kHugePageBytes + 1, .huge_pages = true});
  ASSERT_TRUE(memory.ok()) << memory.status();
  ASSERT_EQ(memory->size(), 2 * kHugePageBytes);
  EXPECT_EQ(FreeHugePageBytes(), free - memory->size());
  memory->writable().back() = 9;
  EXPECT_NE(::ftruncate(memory->descriptor(), kHugePageBytes), 0);
  EXPECT_EQ(
      ::mmap(nullptr, kHugePageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, memory->descriptor(), 0),
      MAP_FAILED);
  {
    auto reader = SharedMemory::MapReadOnly(FileDescriptor::Duplicate(memory->descriptor()),
                                            2 * kHugePageBytes);
    ASSERT_TRUE(reader.ok()) << reader.status();
    EXPECT_EQ(reader->bytes().back(), 9);
  }
  *memory = SharedMemory();
  EXPECT_EQ(FreeHugePageBytes(), free);
}

}  // namespace
}  // namespace cairn::store
