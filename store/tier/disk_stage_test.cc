// Goal: puts that go on side by side keep the promises of those that do not: durable and found when
// published, whole or not at all, whatever fails between.
#include <gtest/gtest.h>

#include "store/tier/tier_test_util.h"

namespace cairn::store {
namespace {

absl::StatusOr<DiskTier::StagedPut> Stage(DiskTier& tier, const std::vector<TestEntry>& entries) {
  std::vector<DiskPut> puts;
  for (const TestEntry& entry : entries) puts.push_back(entry.put());
  return tier.Stage(puts);
}

absl::StatusOr<DiskTier::StagedPut> StageAndWrite(DiskTier& tier,
                                                  const std::vector<TestEntry>& entries) {
  CAIRN_ASSIGN_OR_RETURN(DiskTier::StagedPut staged, Stage(tier, entries));
  CAIRN_RETURN_IF_ERROR(tier.Write(staged));
  return staged;
}

std::vector<TestEntry> Entries(uint64_t first, uint64_t count) {
  std::vector<TestEntry> entries;
  for (uint64_t i = 0; i < count; ++i) entries.push_back(MakeEntry(first + i));
  return entries;
}

bool ContainsAll(DiskTier& tier, const std::vector<TestEntry>& entries) {
  for (const TestEntry& entry : entries) {
    if (!tier.Contains(entry.meta.key)) return false;
  }
  return true;
}

bool ContainsAny(DiskTier& tier, const std::vector<TestEntry>& entries) {
  for (const TestEntry& entry : entries) {
    if (tier.Contains(entry.meta.key)) return true;
  }
  return false;
}

TEST(DiskStageTest, WrittenIsNotFoundUntilPublished) {
  TestDisk disk;
  auto tier = disk.Open();
  const std::vector<TestEntry> a = Entries(0, 2), b = Entries(10, 2);
  {
    DiskTier::StagedPut first = *Stage(*tier, a), second = *Stage(*tier, b);
    ASSERT_TRUE(tier->Write(second).ok());
    ASSERT_TRUE(tier->Write(first).ok());
    EXPECT_FALSE(ContainsAny(*tier, a));
    EXPECT_FALSE(ContainsAny(*tier, b));
    ASSERT_TRUE(tier->Publish(std::move(first)).ok());
    EXPECT_TRUE(ContainsAll(*tier, a));
    EXPECT_FALSE(ContainsAny(*tier, b));
    ASSERT_TRUE(tier->Publish(std::move(second)).ok());
  }
  tier.reset();
  disk.Crash();
  tier = disk.Open();
  for (const auto* batch : {&a, &b}) {
    for (const TestEntry& entry : *batch) EXPECT_TRUE(ReadBack(*tier, entry).ok());
  }
  EXPECT_EQ(tier->stats().live_bytes, 4 * RecordBytes(a[0].meta));
}

TEST(DiskStageTest, DroppedUnpublishedLeavesNothing) {
  for (const bool written : {false, true}) {
    TestDisk disk;
    const auto tier = disk.Open();
    const std::vector<TestEntry> a = Entries(0, 2);
    {
      DiskTier::StagedPut staged = *Stage(*tier, a);
      ASSERT_TRUE(!written || tier->Write(staged).ok());
    }
    EXPECT_FALSE(ContainsAny(*tier, a));
    // Its keys and its room are free again.
    ASSERT_TRUE(PutAll(*tier, a).ok());
    EXPECT_TRUE(ContainsAll(*tier, a));
    EXPECT_EQ(tier->stats().live_bytes, 2 * RecordBytes(a[0].meta));
    EXPECT_EQ(tier->stats().segments, 1u);
  }
}

TEST(DiskStageTest, ASyncThatFailsTakesWhatIsNotSyncedThereAlong) {
  TestDisk disk;
  const auto tier = disk.Open();
  const std::vector<TestEntry> a = Entries(0, 2), b = Entries(10, 2), c = Entries(20, 2);
  DiskTier::StagedPut synced = *StageAndWrite(*tier, c);
  DiskTier::StagedPut first = *Stage(*tier, a), second = *Stage(*tier, b);
  // Two writes and the sync.
  disk.files.SetPlan({.fail_at = 3, .status = absl::UnavailableError("EIO")});
  EXPECT_TRUE(absl::IsUnavailable(tier->Write(first)));
  // The next sync of the same file would succeed, but says nothing about the bytes before.
  EXPECT_TRUE(absl::IsUnavailable(tier->Write(second)));
  // What was synced before the failure is durable.
  EXPECT_TRUE(tier->Publish(std::move(synced)).ok());
  for (DiskTier::StagedPut* dropped : {&first, &second}) {
    [[maybe_unused]] const DiskTier::StagedPut gone = std::move(*dropped);
  }
  EXPECT_FALSE(ContainsAny(*tier, a));
  EXPECT_FALSE(ContainsAny(*tier, b));
  ASSERT_TRUE(PutAll(*tier, a).ok());
  ASSERT_TRUE(PutAll(*tier, b).ok());
  EXPECT_EQ(tier->stats().entries, 6u);
}

TEST(DiskStageTest, AnEntryErasedAfterStageIsNotAcknowledged) {
  TestDisk disk;
  const auto tier = disk.Open();
  const std::vector<TestEntry> old = Entries(0, 1);
  ASSERT_TRUE(PutAll(*tier, old).ok());
  {
    DiskTier::StagedPut staged = *StageAndWrite(*tier, Entries(0, 1));
    ASSERT_TRUE(tier->Erase({&old[0].meta.key, 1}).ok());
    EXPECT_TRUE(absl::IsAborted(tier->Publish(std::move(staged))));
  }
  ASSERT_TRUE(PutAll(*tier, old).ok());
  EXPECT_TRUE(ContainsAll(*tier, old));
}

// Everything that can be cut while three puts overlap and become found in order.
TEST(DiskStageTest, APowerCutAtAnyMomentLosesNothingPublishedAndFindsNothingHalf) {
  const std::vector<TestEntry> entries[] = {Entries(0, 2), Entries(10, 3), Entries(20, 2)};
  for (uint64_t n = 1;; ++n) {
    TestDisk disk;
    disk.random = SeededRandom(n);
    size_t kept = 0;  // of them, the first ones
    uint64_t operations = 0;
    {
      const auto tier = disk.Open();
      disk.catalog->SetFault([&disk] { return disk.files.CountOperation(); });
      disk.files.SetPlan({.fail_at = n,
                          .status = absl::UnavailableError("power is off"),
                          .fail_for_ever = true,
                          .tear_failed_write = true});
      auto a = Stage(*tier, entries[0]), b = Stage(*tier, entries[1]);
      const bool written = a.ok() && b.ok() && tier->Write(*b).ok() && tier->Write(*a).ok();
      if (written && tier->Publish(*std::move(a)).ok()) kept = 1;
      auto c = Stage(*tier, entries[2]);
      if (kept == 1 && c.ok() && tier->Publish(*std::move(b)).ok()) kept = 2;
      if (kept == 2 && tier->Write(*c).ok() && tier->Publish(*std::move(c)).ok()) kept = 3;
      operations = disk.files.operations();
    }
    disk.catalog->SetFault(nullptr);
    disk.files.SetPlan({});
    disk.Crash();
    const auto tier = disk.Open();
    ASSERT_NE(tier, nullptr) << n;
    for (size_t i = 0; i < kept; ++i) EXPECT_TRUE(ContainsAll(*tier, entries[i])) << n;
    for (const auto& batch : entries) {
      for (const TestEntry& entry : batch) {
        EXPECT_TRUE(!tier->Contains(entry.meta.key) || ReadBack(*tier, entry).ok()) << n;
      }
    }
    if (operations < n) {
      EXPECT_EQ(kept, 3u);
      break;
    }
  }
}

}  // namespace
}  // namespace cairn::store
