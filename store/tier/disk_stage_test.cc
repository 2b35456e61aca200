// Goal: puts whose stages overlap keep the promises of those that do not: durable and found when
// published, in order, whole or not at all, whatever fails between.
#include <gtest/gtest.h>

#include "store/tier/tier_test_util.h"

namespace cairn::store {
namespace {

absl::StatusOr<DiskTier::StagedPut> Stage(DiskTier& tier, const std::vector<TestEntry>& entries) {
  std::vector<DiskPut> puts;
  for (const TestEntry& entry : entries) puts.push_back(entry.put());
  return tier.Stage(puts);
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

TEST(DiskStageTest, StagedIsNotFoundUntilPublished) {
  TestDisk disk;
  auto tier = disk.Open();
  const std::vector<TestEntry> a = Entries(0, 2), b = Entries(10, 2);
  {
    std::vector<DiskTier::StagedPut> staged;
    staged.push_back(*Stage(*tier, a));
    staged.push_back(*Stage(*tier, b));
    EXPECT_FALSE(ContainsAny(*tier, a));
    EXPECT_FALSE(ContainsAny(*tier, b));
    ASSERT_TRUE(tier->Publish(staged).ok());
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
  TestDisk disk;
  const auto tier = disk.Open();
  const std::vector<TestEntry> a = Entries(0, 2);
  { ASSERT_TRUE(Stage(*tier, a).ok()); }
  EXPECT_FALSE(ContainsAny(*tier, a));
  // Its keys and its room are free again.
  ASSERT_TRUE(PutAll(*tier, a).ok());
  EXPECT_TRUE(ContainsAll(*tier, a));
  EXPECT_EQ(tier->stats().live_bytes, 2 * RecordBytes(a[0].meta));
}

TEST(DiskStageTest, ASyncThatFailsTakesWhatWasStagedBehindItAlong) {
  TestDisk disk;
  const auto tier = disk.Open();
  const std::vector<TestEntry> a = Entries(0, 2), b = Entries(10, 2);
  std::vector<DiskTier::StagedPut> staged;
  staged.push_back(*Stage(*tier, a));
  staged.push_back(*Stage(*tier, b));
  disk.files.SetPlan({.fail_at = 1, .status = absl::UnavailableError("EIO")});
  EXPECT_TRUE(absl::IsUnavailable(tier->Publish({&staged[0], 1})));
  // The next sync of the same file succeeds, but says nothing about the bytes before.
  EXPECT_TRUE(absl::IsUnavailable(tier->Publish({&staged[1], 1})));
  EXPECT_FALSE(ContainsAny(*tier, a));
  EXPECT_FALSE(ContainsAny(*tier, b));
  ASSERT_TRUE(PutAll(*tier, a).ok());
  ASSERT_TRUE(PutAll(*tier, b).ok());
  EXPECT_EQ(tier->stats().entries, 4u);
}

TEST(DiskStageTest, AnEntryErasedAfterStageIsNotAcknowledged) {
  TestDisk disk;
  const auto tier = disk.Open();
  const std::vector<TestEntry> old = Entries(0, 1);
  ASSERT_TRUE(PutAll(*tier, old).ok());
  std::vector<DiskTier::StagedPut> staged;
  staged.push_back(*Stage(*tier, Entries(0, 1)));
  ASSERT_TRUE(tier->Erase({&old[0].meta.key, 1}).ok());
  EXPECT_TRUE(absl::IsAborted(tier->Publish(staged)));
  ASSERT_TRUE(PutAll(*tier, old).ok());
  EXPECT_TRUE(ContainsAll(*tier, old));
}

// Everything that can be cut in [stage a, stage b, publish a, stage c, publish b and c].
TEST(DiskStageTest, APowerCutAtAnyMomentLosesNothingPublishedAndFindsNothingHalf) {
  const std::vector<TestEntry> a = Entries(0, 2), b = Entries(10, 3), c = Entries(20, 2);
  for (uint64_t n = 1;; ++n) {
    TestDisk disk;
    disk.random = SeededRandom(n);
    bool a_kept = false, rest_kept = false;
    uint64_t operations = 0;
    {
      const auto tier = disk.Open();
      disk.catalog->SetFault([&disk] { return disk.files.CountOperation(); });
      disk.files.SetPlan({.fail_at = n,
                          .status = absl::UnavailableError("power is off"),
                          .fail_for_ever = true,
                          .tear_failed_write = true});
      std::vector<DiskTier::StagedPut> staged;
      const auto stage = [&](const std::vector<TestEntry>& entries) {
        auto put = Stage(*tier, entries);
        if (put.ok()) staged.push_back(*std::move(put));
        return put.ok();
      };
      if (stage(a) && stage(b)) {
        a_kept = tier->Publish({staged.data(), 1}).ok();
        staged.erase(staged.begin());
        if (a_kept && stage(c)) rest_kept = tier->Publish(staged).ok();
      }
      operations = disk.files.operations();
    }
    disk.catalog->SetFault(nullptr);
    disk.files.SetPlan({});
    disk.Crash();
    const auto tier = disk.Open();
    ASSERT_NE(tier, nullptr) << n;
    EXPECT_TRUE(!a_kept || ContainsAll(*tier, a)) << n;
    EXPECT_TRUE(!rest_kept || (ContainsAll(*tier, b) && ContainsAll(*tier, c))) << n;
    for (const auto* batch : {&a, &b, &c}) {
      for (const TestEntry& entry : *batch) {
        EXPECT_TRUE(!tier->Contains(entry.meta.key) || ReadBack(*tier, entry).ok()) << n;
      }
    }
    if (operations < n) {
      EXPECT_TRUE(rest_kept);
      break;
    }
  }
}

}  // namespace
}  // namespace cairn::store
