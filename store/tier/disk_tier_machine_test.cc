// Goal: the tier does on the machine's own files (io_uring where allowed, O_DIRECT where the file
// system takes it) and on RocksDB what the other tests show in memory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "store/device/uring_file_system.h"
#include "store/index/rocks_catalog.h"
#include "store/recovery/check.h"
#include "store/tier/tier_test_util.h"

namespace cairn::store {
namespace {

using ::testing::HasSubstr;

class MachineTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "/cairn_tier_XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    if (GetParam() && !files_.uses_uring()) GTEST_SKIP() << "io_uring is forbidden here";
  }
  void TearDown() override {
    std::error_code error;
    std::filesystem::remove_all(folder_, error);
  }
  absl::StatusOr<std::unique_ptr<DiskTier>> TryOpen() {
    return DiskTier::Open({.directory = folder_, .capacity_bytes = 32 << 20}, files_,
                          MakeRocksCatalog(), RealClock(), &report_);
  }
  std::unique_ptr<DiskTier> Open() {
    auto tier = TryOpen();
    EXPECT_TRUE(tier.ok()) << tier.status();
    return tier.ok() ? *std::move(tier) : nullptr;
  }
  std::string Segment() const { return folder_ + "/segments/" + SegmentSet::FileName(1); }

  UringFileSystem files_{{.use_uring = GetParam()}};
  std::string folder_;
  RecoveryReport report_;
};

INSTANTIATE_TEST_SUITE_P(Ways, MachineTest, ::testing::Bool(),
                         [](const auto& test) { return test.param ? "Uring" : "Pread"; });

std::vector<TestEntry> SomeEntries() {
  std::vector<TestEntry> entries;
  for (uint64_t i = 0; i < 12; ++i) entries.push_back(MakeEntry(i, {300'000, 77, 150'000}));
  return entries;
}

TEST_P(MachineTest, DamagedInMemoryItIsNotTakenAndTheOthersAre) {
  std::vector<TestEntry> entries = SomeEntries();
  entries[5].payload.bytes()[300'005] ^= 1;
  const auto tier = Open();
  const absl::Status refused = PutAll(*tier, entries);
  EXPECT_TRUE(absl::IsDataLoss(refused)) << refused;
  EXPECT_THAT(std::string(refused.message()), HasSubstr("part 1"));
  EXPECT_EQ(tier->stats().entries, 0u);
  entries.erase(entries.begin() + 5);
  EXPECT_TRUE(PutAll(*tier, entries).ok());
}

TEST_P(MachineTest, KeepsEntriesAcrossProcesses) {
  const std::vector<TestEntry> entries = SomeEntries();
  {
    const auto tier = Open();
    ASSERT_TRUE(PutAll(*tier, entries).ok());
    const auto second = TryOpen();
    EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(second.status().message()), HasSubstr(folder_));
    EXPECT_THAT(std::string(second.status().message()), HasSubstr(std::to_string(::getpid())));
  }
  const auto tier = Open();
  ASSERT_TRUE(tier->Survey(nullptr).ok());
  EXPECT_EQ(tier->stats().entries, entries.size());
  EXPECT_FALSE(report_.catalog_rebuilt) << report_.catalog_trouble;
  std::vector<IoBuffer> buffers;
  std::vector<DiskRead> reads;
  for (const TestEntry& entry : entries) {
    buffers.emplace_back(entry.meta.payload_bytes());
    reads.push_back(
        {.key = entry.meta.key, .destination = buffers.back().bytes(), .status = {}, .meta = {}});
  }
  tier->ReadBatch(reads);
  for (size_t i = 0; i < entries.size(); ++i) {
    ASSERT_TRUE(reads[i].status.ok()) << reads[i].status;
    const auto stored = entries[i].payload.bytes();
    EXPECT_TRUE(std::equal(stored.begin(), stored.end(), buffers[i].bytes().begin()));
  }
}

TEST_P(MachineTest, ADeletedOrGarbageCatalogIsRebuilt) {
  const std::vector<TestEntry> entries = SomeEntries();
  { ASSERT_TRUE(PutAll(*Open(), entries).ok()); }
  std::error_code error;
  for (const std::string way : {"deleted", "garbage"}) {
    if (way == "deleted") {
      std::filesystem::remove_all(folder_ + "/catalog", error);
    } else {
      for (const auto& file : std::filesystem::directory_iterator(folder_ + "/catalog", error)) {
        std::ofstream(file.path()) << "garbage";
      }
    }
    const auto catalog = MakeRocksCatalog();
    const auto check = CheckDirectory(folder_, files_, *catalog);
    ASSERT_TRUE(check.ok()) << check.status();
    EXPECT_TRUE(check->catalog_damaged()) << way;
    EXPECT_EQ(check->records, entries.size());
    const auto tier = Open();
    EXPECT_TRUE(report_.catalog_rebuilt) << way;
    ASSERT_TRUE(tier->Survey(nullptr).ok());
    EXPECT_EQ(tier->stats().entries, entries.size());
    for (const TestEntry& entry : entries) EXPECT_TRUE(ReadBack(*tier, entry).ok());
  }
  EXPECT_TRUE(std::filesystem::exists(folder_ + "/catalog.damaged-1"));
}

TEST_P(MachineTest, AFlippedByteOnDiskIsACountedMiss) {
  const TestEntry entry = MakeEntry(1, {300'000});
  const auto tier = Open();
  ASSERT_TRUE(tier->Put({{entry.put()}}).ok());
  {
    std::fstream file(Segment(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(150'000);
    const char byte = static_cast<char>(file.get() ^ 1);
    file.seekp(150'000);
    file.put(byte);
  }
  EXPECT_EQ(ReadBack(*tier, entry).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(tier->stats().checksum_failures, 1u);
  EXPECT_FALSE(tier->Contains(entry.meta.key));
}

TEST_P(MachineTest, SegmentFilesTakeTheSpaceTheyAreCountedFor) {
  const auto tier = Open();
  ASSERT_TRUE(PutAll(*tier, SomeEntries()).ok());
  uint64_t sum = 0;
  std::error_code error;
  for (const auto& file : std::filesystem::directory_iterator(folder_ + "/segments", error)) {
    sum += file.file_size(error);
  }
  EXPECT_EQ(tier->stats().used_bytes, sum);
}

}  // namespace
}  // namespace cairn::store
