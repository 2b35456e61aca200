// Goal: damage on disk, of a record, of the catalog or of both, is found by whoever looks, costs
// its entry and no other, is counted and told once, and stops nothing. Method: flipped bytes on a
// disk in memory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "store/recovery/store_files.h"
#include "store/segment/record_format.h"
#include "store/tier/tier_test_util.h"

namespace cairn::store {
namespace {

using ::testing::HasSubstr;

// Every byte of the header's fields, part table and attributes, and one in each stretch of every
// part.
TEST(DiskTierTest, AFlippedByteAnywhereIsACountedMissAndTheEntryIsGone) {
  const TestEntry entry = MakeEntry(1);
  const uint64_t start = kSegmentHeaderBytes;
  const uint64_t header = RecordHeaderBytes(entry.meta);
  const uint64_t used =
      sizeof(RecordHeader) + 2 * sizeof(RecordPart) + entry.meta.attributes.size();
  std::vector<uint64_t> offsets;
  for (uint64_t at = 0; at < used; ++at) offsets.push_back(start + at);
  offsets.push_back(start + header - 1);
  for (uint64_t at = 0; at < entry.meta.payload_bytes(); at += 499) {
    offsets.push_back(start + header + at);
  }
  offsets.push_back(start + header + 4999);
  offsets.push_back(start + header + 5000);
  offsets.push_back(start + header + entry.meta.payload_bytes() - 1);
  for (const uint64_t offset : offsets) {
    TestDisk disk;
    const auto tier = disk.Open();
    const TestEntry other = MakeEntry(2);
    ASSERT_TRUE(tier->Put({{entry.put(), other.put()}}).ok());
    ASSERT_TRUE(disk.memory.FlipByte(disk.SegmentPath(1), offset, 0x10).ok());
    // The header is for a rebuild; who only wants the payload is not hurt by its decay.
    if (offset < start + header) {
      ASSERT_TRUE(ReadBack(*tier, entry).ok()) << offset;
    }
    const RecordCheck check = offset < start + header ? RecordCheck::kWhole : RecordCheck::kPayload;
    ASSERT_EQ(ReadBack(*tier, entry, check).code(), absl::StatusCode::kDataLoss) << offset;
    ASSERT_EQ(tier->stats().checksum_failures, 1u);
    ASSERT_FALSE(tier->Contains(entry.meta.key));
    ASSERT_EQ(ReadBack(*tier, entry).code(), absl::StatusCode::kNotFound);
    ASSERT_EQ(tier->stats().checksum_failures, 1u);
    ASSERT_TRUE(ReadBack(*tier, other).ok());
    // It may be put again, and is whole then.
    ASSERT_TRUE(tier->Put({{entry.put()}}).ok());
    ASSERT_TRUE(ReadBack(*tier, entry).ok());
  }
}

// Memory is sound, and yet other bytes went to the disk: of the first record, or of the second.
TEST(DiskTierTest, WhatIsHurtOnItsWayToTheDiskIsRefusedAndMayBePutAgain) {
  std::vector<TestEntry> entries;
  entries.push_back(MakeEntry(1));
  entries.push_back(MakeEntry(2));
  uint64_t refused = 0;
  for (uint64_t at = 1; at <= 20; ++at) {
    TestDisk disk;
    const auto tier = disk.Open();
    ASSERT_TRUE(tier->Put({{MakeEntry(3).put()}}).ok());
    disk.files.SetPlan({.flip_write_at = at});
    const absl::Status put = PutAll(*tier, entries);
    disk.files.SetPlan({});
    if (!put.ok()) {
      ++refused;
      EXPECT_TRUE(absl::IsDataLoss(put)) << put;
      EXPECT_THAT(std::string(put.message()), HasSubstr("other bytes came to the device"));
      EXPECT_EQ(tier->stats().entries, 1u);
      ASSERT_TRUE(PutAll(*tier, entries).ok());
    }
    for (const TestEntry& entry : entries) EXPECT_TRUE(ReadBack(*tier, entry).ok()) << at;
  }
  EXPECT_EQ(refused, entries.size());
}

TEST(DiskTierTest, AFlippedByteOfThePaddingIsHarmless) {
  TestDisk disk;
  const auto tier = disk.Open();
  TestEntry entry = MakeEntry(1);
  ASSERT_TRUE(tier->Put({{entry.put()}}).ok());
  const uint64_t padding =
      kSegmentHeaderBytes + RecordHeaderBytes(entry.meta) + entry.meta.payload_bytes();
  ASSERT_TRUE(disk.memory.FlipByte(disk.SegmentPath(1), padding, 0xff).ok());
  entry.payload.bytes()[entry.meta.payload_bytes()] = 0xff;
  EXPECT_TRUE(ReadBack(*tier, entry).ok());
}

// After a failed write of the catalog nobody knows whether it will be found one day. The entry is
// there as long as this process lives; a put that took it for stored would be lost with the next
// start.
TEST(DiskTierTest, AnErasureThatFailedAndShowsLaterCostsNoLaterPut) {
  TestDisk disk;
  const TestEntry entry = MakeEntry(1);
  const TestEntry other = MakeEntry(2);
  auto tier = disk.Open();
  ASSERT_TRUE(tier->Put({{entry.put(), other.put()}}).ok());
  disk.catalog->SetFault([] { return absl::UnavailableError("Input/output error"); });
  EXPECT_TRUE(absl::IsUnavailable(tier->Erase({{entry.meta.key}})));
  EXPECT_TRUE(absl::IsUnavailable(tier->Put({{entry.put()}}))) << "it cannot be stored for certain";
  disk.catalog->SetFault(nullptr);
  disk.catalog->ApplyUnseen({.puts = {}, .erases = {entry.meta.key}, .values = {}});
  ASSERT_TRUE(tier->Put({{entry.put()}}).ok());
  const DiskTierStats stats = tier->stats();
  EXPECT_EQ(stats.entries, 2u);
  tier.reset();
  disk.Crash();
  tier = disk.Open();
  EXPECT_TRUE(ReadBack(*tier, entry).ok());
  EXPECT_TRUE(ReadBack(*tier, other).ok());
  EXPECT_EQ(tier->stats().live_bytes, stats.live_bytes);
}

// As a kill leaves it between two puts that went side by side: catalogued, and not yet settled.
TEST(DiskTierTest, ADamagedCatalogValueOfAnUnsettledRecordIsMendedAtTheStart) {
  TestDisk disk;
  const TestEntry entry = MakeEntry(1);
  auto tier = disk.Open();
  const auto mark = MemoryCatalog(disk.catalog).GetValue(kValueWatermark);
  ASSERT_TRUE(mark.ok() && mark->has_value());
  ASSERT_TRUE(tier->Put({{entry.put()}}).ok());
  tier.reset();
  CatalogBatch earlier;
  earlier.values = {{kValueWatermark, **mark}};
  ASSERT_TRUE(MemoryCatalog(disk.catalog).Apply(earlier, /*sync=*/true).ok());
  ASSERT_TRUE(disk.catalog->FlipByte(entry.meta.key, 30, 4));
  tier = disk.Open();
  ASSERT_NE(tier, nullptr);
  EXPECT_EQ(disk.report.adopted_entries, 1u);
  EXPECT_TRUE(ReadBack(*tier, entry).ok());
}

TEST(DiskTierTest, ADamagedCatalogValueIsACountedMiss) {
  TestDisk disk;
  const auto tier = disk.Open();
  const TestEntry entry = MakeEntry(1);
  ASSERT_TRUE(tier->Put({{entry.put()}}).ok());
  ASSERT_TRUE(disk.catalog->FlipByte(entry.meta.key, 12, 1));
  EXPECT_EQ(ReadBack(*tier, entry).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(tier->stats().checksum_failures, 1u);
  EXPECT_FALSE(tier->Contains(entry.meta.key));
  EXPECT_EQ(tier->stats().checksum_failures, 1u);
}

TEST(DiskTierTest, ReclaimGetsRidOfASegmentWhoseRecordsAreDamaged) {
  TestDisk disk;
  disk.capacity_bytes = 32ull << 20;
  const auto tier = disk.Open();
  const uint64_t count = Fill(*tier, disk, 0);
  // The header of the first record, the payload of the second.
  const uint64_t record = RecordBytes(MakeEntry(0, {60'000}).meta);
  ASSERT_TRUE(disk.memory.FlipByte(disk.SegmentPath(1), kSegmentHeaderBytes + 40).ok());
  ASSERT_TRUE(disk.memory.FlipByte(disk.SegmentPath(1), kSegmentHeaderBytes + record + 9000).ok());
  std::vector<EntryKey> keys;
  for (uint64_t i = 3; i < count; ++i) keys.push_back(TestKey(i));
  ASSERT_TRUE(tier->Erase(keys).ok());
  ASSERT_TRUE(tier->Reclaim(30 << 20).ok());
  EXPECT_EQ(tier->stats().checksum_failures, 2u);
  EXPECT_FALSE(*disk.memory.Exists(disk.SegmentPath(1)));
  EXPECT_TRUE(ReadBack(*tier, MakeEntry(2, {60'000})).ok());
  EXPECT_FALSE(tier->Contains(TestKey(0)));
  EXPECT_EQ(tier->stats().entries, 1u);
}

// Whoever comes upon it: a read, Reclaim, a look at the catalog.
TEST(DiskTierTest, TheOwnerIsToldOnceOfEachEntryThatIsWithdrawn) {
  TestDisk disk;
  disk.capacity_bytes = 32ull << 20;
  const auto tier = disk.Open();
  std::map<EntryKey, std::string> told;
  tier->OnWithdrawn([&](const EntryKey& key, const absl::Status& why) {
    EXPECT_TRUE(absl::IsDataLoss(why)) << why;
    EXPECT_TRUE(told.emplace(key, why.message()).second);
  });
  const uint64_t count = Fill(*tier, disk, 0);
  const uint64_t record = RecordBytes(MakeEntry(0, {60'000}).meta);
  const auto flip = [&](uint64_t number, uint64_t byte) {
    const uint64_t at = kSegmentHeaderBytes + number * record + byte;
    ASSERT_TRUE(disk.memory.FlipByte(disk.SegmentPath(1), at).ok());
  };
  flip(0, 40);    // a header
  flip(1, 9000);  // a payload
  flip(2, 9000);
  EXPECT_TRUE(absl::IsDataLoss(ReadBack(*tier, MakeEntry(2, {60'000}))));
  EXPECT_THAT(told.at(TestKey(2)), HasSubstr(disk.SegmentPath(1)));
  EXPECT_EQ(told.size(), 1u);
  std::vector<EntryKey> keys = {TestKey(2)};  // and what is erased is not told
  for (uint64_t i = 4; i < count; ++i) keys.push_back(TestKey(i));
  ASSERT_TRUE(tier->Erase(keys).ok());
  ASSERT_TRUE(tier->Reclaim(30 << 20).ok());
  EXPECT_TRUE(told.contains(TestKey(0)) && told.contains(TestKey(1)));
  EXPECT_EQ(told.size(), 3u);
  ASSERT_TRUE(disk.catalog->FlipByte(TestKey(3), 30, 4));
  EXPECT_FALSE(tier->Contains(TestKey(3)));
  EXPECT_EQ(told.size(), 4u);
  EXPECT_EQ(tier->stats().checksum_failures, 4u);
}

class DamagedCatalog : public ::testing::Test {
 protected:
  // Full, with a damaged value in the catalog; nobody has looked yet.
  DamagedCatalog() {
    disk_.capacity_bytes = 16ull << 20;
    count_ = Fill(*disk_.Open(), disk_, 0);
    EXPECT_TRUE(disk_.catalog->FlipByte(TestKey(20), 30, 4));
    auto opened = disk_.TryOpen();
    EXPECT_TRUE(opened.ok()) << opened.status();
    tier_ = *std::move(opened);
  }
  // Of six, one stays: every segment is empty enough to be moved.
  void EraseMost() {
    std::vector<EntryKey> keys;
    for (uint64_t i = 0; i < count_; ++i) {
      if (!Stays(i)) keys.push_back(TestKey(i));
    }
    ASSERT_TRUE(tier_->Erase(keys).ok());
  }
  static bool Stays(uint64_t number) { return number % 6 == 2; }
  void ExpectAllThere() {
    for (uint64_t i = 0; i < count_; ++i) {
      if (Stays(i)) {
        EXPECT_TRUE(ReadBack(*tier_, MakeEntry(i, {60'000})).ok()) << i;
      }
    }
  }

  TestDisk disk_;
  std::unique_ptr<DiskTier> tier_;
  uint64_t count_ = 0;
};

TEST_F(DamagedCatalog, DoesNotStopReclaimAndCostsNoEntry) {
  ASSERT_TRUE(tier_->Survey(nullptr).ok());
  EraseMost();
  ASSERT_TRUE(tier_->Reclaim(8 << 20).ok());
  EXPECT_GT(tier_->stats().reclaimed_segments, 5u);
  EXPECT_EQ(tier_->stats().checksum_failures, 0u);
  EXPECT_EQ(tier_->stats().entries, count_ / 6 + (count_ % 6 > 2 ? 1 : 0));
  ExpectAllThere();
  EXPECT_GT(Fill(*tier_, disk_, 1000), 100u);
}

// The segment of which nobody can tell what lives in it stays, with all its entries.
TEST_F(DamagedCatalog, AndADamagedHeaderCostNoOtherEntryAndNoRoomElsewhere) {
  const uint64_t record = RecordBytes(MakeEntry(0, {60'000}).meta);
  // Of an entry that the catalog names: 0 stays there by its word.
  ASSERT_TRUE(disk_.memory.FlipByte(disk_.SegmentPath(1), kSegmentHeaderBytes + 2 * record).ok());
  EXPECT_TRUE(absl::IsDataLoss(tier_->Survey(nullptr)));
  EraseMost();
  ASSERT_TRUE(tier_->Reclaim(8 << 20).ok());
  EXPECT_GT(tier_->stats().reclaimed_segments, 5u);
  EXPECT_TRUE(*disk_.memory.Exists(disk_.SegmentPath(1)));
  ExpectAllThere();
}

TEST(DiskTierTest, ACatalogThatTakesNoMoreIsNotDamageOfWhatIsPut) {
  TestDisk disk;
  const auto tier = disk.Open();
  disk.catalog->SetFault([] { return absl::DataLossError("a table of the catalog is damaged"); });
  EXPECT_TRUE(absl::IsUnavailable(tier->Put({{MakeEntry(1).put()}})));
  disk.catalog->SetFault(nullptr);
  EXPECT_TRUE(tier->Put({{MakeEntry(1).put()}}).ok());
}

}  // namespace
}  // namespace cairn::store
