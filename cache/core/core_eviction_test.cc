// Goal: a disk that evicts by segment stays under its limit, writes little twice, keeps what is
// pinned or leased, never leaves an entry without its ancestors, agrees with the index, and loses
// nothing but what it chose to, also when the power goes in the middle. Method: texts that share
// beginnings, through a whole core with the daemon's policy, on a disk too small for them.
#include <gtest/gtest.h>

#include <set>

#include "cache/core/core_rig.h"

namespace cairn::cache {
namespace {

constexpr uint64_t kDiskBytes = 2 << 20;

class CoreEviction : public testing::Test {
 protected:
  CoreEviction()
      : rig_({.host_units = 48, .disk_bytes = kDiskBytes, .eviction_disk = kDefaultPolicy}) {}

  // Text `t`: eight blocks of one of four stems, and four of its own.
  std::vector<Digest> Text(int t) { return rig_.Chain(12, t % 4, 8, t); }
  absl::Status Put(int t) {
    const absl::Status status = rig_.PutAll(Text(t), /*durable=*/true);
    EXPECT_LE(rig_.disk->stats().used_bytes, kDiskBytes);
    EXPECT_LE(SegmentFileBytes(), kDiskBytes);
    return absl::IsAlreadyExists(status) ? absl::OkStatus() : status;
  }
  uint64_t SegmentFileBytes() {
    uint64_t sum = 0;
    const auto names = rig_.files.List("/data/segments");
    if (!names.ok()) return 0;
    for (const std::string& name : *names) {
      const auto file = rig_.files.Open("/data/segments/" + name, store::OpenMode::kReadOnly);
      if (file.ok()) sum += *(*file)->Size();
    }
    return sum;
  }
  // What the index says is on disk.
  std::set<EntryKey> OnDisk() {
    std::set<EntryKey> keys;
    for (const ListedPrefix& listed : rig_.core->List({})) {
      if (listed.rows_disk) keys.insert({listed.digest, EntryKind::kRows});
      if (listed.checkpoint_disk) keys.insert({listed.digest, EntryKind::kCheckpoint});
    }
    return keys;
  }
  std::set<EntryKey> InCatalog() {
    std::set<EntryKey> keys;
    EXPECT_TRUE(rig_.disk
                    ->ForEach([&](const EntryMeta& meta) {
                      keys.insert(meta.key);
                      return true;
                    })
                    .ok());
    return keys;
  }

  CoreRig rig_;
};

TEST_F(CoreEviction, KeepsItsPromisesOverALongTime) {
  SeededRandom random(9);
  ASSERT_TRUE(Put(0).ok());
  ASSERT_TRUE(rig_.core->Pin(Text(0).back(), true).ok());
  for (int i = 0; i < 1500; ++i) {
    // A third returns, mostly to what was there lately.
    const int back = static_cast<int>(random.Next() % 40);
    const int t = random.Next() % 3 == 0 ? std::max(1, i - back) : i + 1;
    if (const auto prefix = rig_.Fetch(Text(t)); prefix.ok() && !prefix->rows.empty()) {
      ASSERT_TRUE(rig_.core->Release(rig_.session, prefix->lease).ok());
    }
    ASSERT_TRUE(Put(t).ok()) << i;
    ASSERT_EQ(OnDisk(), InCatalog()) << i;
  }
  EXPECT_GT(rig_.Stat("evicted_disk_entries"), 3000u);
  EXPECT_GT(rig_.Stat("disk_moved_bytes"), 0u);
  EXPECT_GT(rig_.Stat("disk_live_bytes"), kDiskBytes / 2);
  const uint64_t put = rig_.Stat("disk_put_bytes"), moved = rig_.Stat("disk_moved_bytes");
  EXPECT_LT(static_cast<double>(put + moved), 1.3 * static_cast<double>(put));
  EXPECT_EQ(rig_.Stat("disk_write_amplification_percent"), 100 * (put + moved) / put);
  // The pinned text, and every stem, is whole; nothing is left without its ancestors.
  const std::set<EntryKey> before = OnDisk();
  rig_.DropFromHost();
  EXPECT_EQ(rig_.Stat("startup_orphan_entries"), 0u);
  EXPECT_EQ(OnDisk(), before);
  EXPECT_TRUE(rig_.Fetch(Text(0))->checkpoint.has_value());
  for (int t = 1; t < 4; ++t) EXPECT_GE(rig_.Rows(Text(t)), 8u) << t;
}

TEST_F(CoreEviction, WhatIsLeasedStays) {
  ASSERT_TRUE(Put(0).ok());
  const auto leased = rig_.core->MatchAndLease(rig_.session, Text(0));
  ASSERT_TRUE(leased.ok() && leased->leased.has_value());
  for (int t = 4; t < 400; t += 4) ASSERT_TRUE(Put(t).ok());  // of the same stem
  EXPECT_GT(rig_.Stat("evicted_disk_entries"), 0u);
  const std::set<EntryKey> on_disk = OnDisk();
  for (const Digest& digest : Text(0)) {
    EXPECT_TRUE(on_disk.contains({digest, EntryKind::kRows}));
  }
}

TEST_F(CoreEviction, ADiskFullOfPinnedTextsSaysSo) {
  rig_.sizes.host_units = 1000;  // not what is full first
  rig_.Restart();
  absl::Status status;
  int t = 0;
  for (; status.ok() && t < 1000; ++t) {
    status = Put(t);
    if (status.ok()) {
      ASSERT_TRUE(rig_.core->Pin(Text(t).back(), true).ok());
    }
  }
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  ASSERT_GT(t, 20);
  for (int p = 0; p + 1 < t; ++p) EXPECT_EQ(rig_.Rows(Text(p)), 12u) << p;
}

// The power goes at some write, sync, cut or deletion after the disk was full.
class PowerCut : public CoreEviction, public testing::WithParamInterface<int> {};

TEST_P(PowerCut, LosesOnlyWhatWasChosenToGo) {
  int t = 0;
  while (rig_.Stat("evicted_disk_entries") == 0) ASSERT_TRUE(Put(t++).ok());
  const absl::Status off = absl::UnavailableError("power is off");
  rig_.device.SetPlan(
      {.fail_at = static_cast<uint64_t>(GetParam()), .status = off, .fail_for_ever = true});
  while (Put(t).ok()) ASSERT_LT(++t, 2000);
  const std::set<EntryKey> kept = OnDisk();
  rig_.Restart(/*crash=*/true);
  EXPECT_EQ(rig_.Stat("startup_orphan_entries"), 0u);
  const std::set<EntryKey> found = OnDisk();
  EXPECT_EQ(found, InCatalog());
  for (const EntryKey& key : kept) ASSERT_TRUE(found.contains(key));
  const auto report = rig_.core->Verify({}, nullptr);
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->damaged(), 0u);
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(Put(++t).ok());  // and it goes on
  EXPECT_EQ(OnDisk(), InCatalog());
}

INSTANTIATE_TEST_SUITE_P(AtEach, PowerCut, testing::Range(1, 240, 4));

}  // namespace
}  // namespace cairn::cache
