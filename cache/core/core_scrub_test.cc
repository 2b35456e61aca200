// Goal: what decays is found by whoever re-reads it, wherever it lies; it costs its entry only
// where no other copy is good, is counted once, by kind and tier, and the index hears of it.
// Verifying takes no more of the devices than its rate. Method: flipped bytes, and a clock turned
// by hand or by whoever waits.
#include <gtest/gtest.h>

#include "cache/core/core_rig.h"
#include "store/segment/segment_set.h"

namespace cairn::cache {
namespace {

constexpr EntryKind kRows = EntryKind::kRows, kCheckpoint = EntryKind::kCheckpoint;

store::RecordLocation PlaceOf(const CoreRig& rig, const EntryKey& key) {
  const auto at = store::MemoryCatalog(rig.catalog).Get(key);
  EXPECT_TRUE(at.ok() && at->has_value());
  return at.ok() && at->has_value() ? (*at)->location : store::RecordLocation();
}

// One byte of the record on disk: 0 is the first of its header, kIoAlignment that of the payload.
void FlipOnDisk(CoreRig& rig, const EntryKey& key, uint64_t byte = kIoAlignment + 7) {
  const store::RecordLocation at = PlaceOf(rig, key);
  const std::string path = "/data/segments/" + store::SegmentSet::FileName(at.segment);
  ASSERT_TRUE(rig.files.FlipByte(path, at.offset + byte, 0x10).ok());
}

// Decay of memory: the arena is ours to write.
void FlipInHost(CoreRig& rig, const EntryKey& key) {
  const std::optional<store::HostPin> pin = rig.host->Find(key);
  ASSERT_TRUE(pin.has_value());
  *const_cast<uint8_t*>(pin->payload().data() + 9) ^= 1;
}

// Time passes for whoever waits, and only so.
class TurningWaiter final : public Waiter {
 public:
  explicit TurningWaiter(FakeClock& clock) : clock_(clock) {}
  void Wait(Mutex&, CondVar&, int64_t deadline_nanos) override {
    clock_.Advance(absl::Nanoseconds(deadline_nanos - clock_.NowNanos()));
  }

 private:
  FakeClock& clock_;
};

TEST(CoreVerify, NeverReadsMoreThanItsRateAndTellsEachSecond) {
  CoreRig rig({.host_units = 256});
  for (int stem = 0; stem < 5; ++stem) ASSERT_TRUE(rig.PutAll(rig.Chain(3, stem), true).ok());
  TurningWaiter waiter(rig.clock);
  rig.sizes.options.waiter = &waiter;
  rig.Restart();
  for (int stem = 0; stem < 3; ++stem) ASSERT_TRUE(rig.Fetch(rig.Chain(3, stem)).ok());
  constexpr uint64_t kRate = 1000;
  constexpr double kOneEntry = 2 * 5120;  // the largest, in both tiers
  VerifyReport before;
  const auto report = rig.core->Verify({.bytes_per_second = kRate}, [&](const VerifyReport& now) {
    const double seconds = absl::ToDoubleSeconds(now.elapsed);
    EXPECT_LE(static_cast<double>(now.bytes), kRate * seconds + kOneEntry);
    EXPECT_LE(now.elapsed - before.elapsed, absl::Seconds(1));
    EXPECT_EQ(now.total_entries, 20u);
    before = now;
    return true;
  });
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->entries, 20u);
  EXPECT_EQ(report->bytes, report->total_bytes);
  EXPECT_EQ(report->bytes, 8 * (3 * 2148u + 5120u));  // five on disk, three in memory too
  // Nor does it dawdle: headers and padding are read too.
  EXPECT_LE(absl::ToDoubleSeconds(report->elapsed), 5 * (3 * 8192 + 12288) / 1e3 + 3 * 11564 / 1e3);
  EXPECT_EQ(rig.Stat("verified_bytes"), report->bytes);
}

TEST(CoreVerify, EndsWhenItsCallerSaysSo) {
  CoreRig rig;
  ASSERT_TRUE(rig.PutAll(rig.Chain(4), true).ok());
  EXPECT_TRUE(
      absl::IsCancelled(rig.core->Verify({}, [](const VerifyReport&) { return false; }).status()));
  EXPECT_EQ(rig.Stat("verified_entries"), 0u);
  uint64_t kept = 0;
  EXPECT_EQ(*rig.core->Evict({}, &kept), 5u);
  EXPECT_EQ(kept, 0u);  // it holds nothing
}

TEST(CoreVerify, LooksAtWhatTheFilterMeans) {
  CoreRig rig;
  const SessionId a = rig.Open("a");
  const std::vector<Digest> chain = rig.Chain(4), foreign = rig.Chain(2, 0, SIZE_MAX, 0, a);
  ASSERT_TRUE(rig.PutAll(chain).ok());
  ASSERT_TRUE(rig.PutAll(foreign, false, a).ok());
  EXPECT_EQ(rig.core->Verify({}, nullptr)->entries, 8u);
  EXPECT_EQ(rig.core->Verify({.filter = {.prefix = chain[2]}}, nullptr)->entries, 3u);
  EXPECT_EQ(rig.core->Verify({.filter = {.namespace_root = rig.roots.at(a)}}, nullptr)->entries,
            3u);
  EXPECT_EQ(rig.core->Verify({.filter = {.leaves_only = true}}, nullptr)->total_entries, 4u);
}

TEST(CoreVerify, ADeviceThatDoesNotReadIsNoDamage) {
  CoreRig rig;
  const std::vector<Digest> chain = rig.Chain(2);
  ASSERT_TRUE(rig.PutAll(chain, true).ok());
  rig.device.SetPlan(
      {.fail_at = 1, .status = absl::UnavailableError("no such device"), .fail_for_ever = true});
  const auto report = rig.core->Verify({}, nullptr);
  EXPECT_EQ(report->unreadable, 3u);
  EXPECT_EQ(report->damaged(), 0u);
  rig.device.SetPlan({});
  EXPECT_EQ(rig.core->Verify({}, nullptr)->unreadable, 0u);
}

// A copy that decayed on one tier costs nothing while the other tier has a good one.
TEST(CoreVerify, EitherTierHealsTheOther) {
  CoreRig rig;
  const std::vector<Digest> chain = rig.Chain(4);
  ASSERT_TRUE(rig.PutAll(chain, true).ok());
  FlipOnDisk(rig, {chain[0], kRows});
  FlipOnDisk(rig, {chain[1], kRows}, 40);  // the record's header
  FlipOnDisk(rig, {chain[3], kCheckpoint});
  FlipInHost(rig, {chain[2], kRows});
  const auto report = rig.core->Verify({}, nullptr);
  EXPECT_EQ(report->damaged_disk, 3u);
  EXPECT_EQ(report->damaged_host, 1u);
  EXPECT_EQ(report->healed, 4u);
  EXPECT_EQ(rig.Stat("damaged_disk_rows_entries"), 2u);
  EXPECT_EQ(rig.Stat("damaged_disk_checkpoint_entries"), 1u);
  EXPECT_EQ(rig.Stat("damaged_host_rows_entries"), 1u);
  EXPECT_EQ(rig.Stat("damaged_host_checkpoint_entries"), 0u);
  EXPECT_EQ(rig.Stat("checksum_failures"), 4u);
  EXPECT_TRUE(rig.Fetch(chain)->checkpoint.has_value());  // every byte is looked at
  rig.DropFromHost();
  EXPECT_TRUE(rig.Fetch(chain)->checkpoint.has_value());  // and on disk it is whole again
  EXPECT_EQ(rig.core->Verify({}, nullptr)->damaged(), 0u);
}

TEST(CoreVerify, WhatIsWrittenAgainIsCounted) {
  CoreRig rig;
  const std::vector<Digest> chain = rig.Chain(2);
  ASSERT_TRUE(rig.PutAll(chain, true).ok());
  FlipOnDisk(rig, {chain[0], kRows});
  ASSERT_EQ(rig.core->Verify({}, nullptr)->healed, 1u);
  EXPECT_EQ(rig.Stat("healed_disk_entries"), 0u);
  ASSERT_TRUE(rig.core->Flush(absl::Seconds(10)).ok());
  EXPECT_EQ(rig.Stat("healed_disk_entries"), 1u);
}

TEST(CoreVerify, DamagedOnBothTiersIsGoneAndMayBePutAgain) {
  CoreRig rig;
  const std::vector<Digest> chain = rig.Chain(3);
  ASSERT_TRUE(rig.PutAll(chain, true).ok());
  FlipOnDisk(rig, {chain[1], kRows});
  FlipInHost(rig, {chain[1], kRows});
  const auto report = rig.core->Verify({}, nullptr);
  EXPECT_EQ(report->damaged(), 2u);
  EXPECT_EQ(report->healed, 0u);
  EXPECT_EQ(rig.Rows(chain), 1u);
  ASSERT_TRUE(rig.Put(chain, 1, kRows, true).ok());
  EXPECT_TRUE(rig.Fetch(chain)->checkpoint.has_value());
}

// What Reclaim finds on its way: the index hears of it without anybody having asked for the entry.
class ReclaimFinds : public testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(Places, ReclaimFinds, testing::Bool(),
                         [](const auto& test) { return test.param ? "HostToo" : "DiskOnly"; });

TEST_P(ReclaimFinds, DamageIsToldToTheIndex) {
  const bool in_host = GetParam();
  CoreRig rig({.host_units = 400, .disk_bytes = 4 << 20, .segment_bytes = 64 << 10});
  const std::vector<Digest> chain = rig.Chain(2);
  ASSERT_TRUE(rig.PutAll(chain, true).ok());
  const uint64_t segment = PlaceOf(rig, {chain[1], kRows}).segment;
  for (int stem = 1; stem < 8; ++stem) ASSERT_TRUE(rig.PutAll(rig.Chain(2, stem), true).ok());
  if (!in_host) rig.DropFromHost();
  uint64_t kept = 0;
  for (int stem = 1; stem < 8; ++stem) {
    ASSERT_TRUE(rig.core->Evict({.prefix = rig.Chain(2, stem)[0]}, &kept).ok());
  }
  // Little enough of the segment lives to be moved.
  ASSERT_TRUE(rig.core->Evict({.prefix = chain[1]}, &kept).ok());
  ASSERT_TRUE(rig.Put(chain, 1, kRows, true).ok());
  FlipOnDisk(rig, {chain[0], kRows});
  ASSERT_TRUE(rig.disk->ReclaimSegment(segment).ok());
  EXPECT_EQ(rig.disk->stats().checksum_failures, 1u);
  EXPECT_EQ(rig.Stat("damaged_disk_rows_entries"), 1u);
  EXPECT_EQ(rig.Rows(chain), in_host ? 2u : 0u);
  if (!in_host) return;
  rig.DropFromHost();  // and it was written again
  EXPECT_EQ(rig.Fetch(chain)->rows.size(), 2u);
}

// ---- the scrubber ----

class CoreScrub : public testing::Test {
 protected:
  CoreScrub() : rig_({.host_units = 256, .options = {.scrub_bytes_per_second = 100'000}}) {}
  // Until so many rounds are over. Between rounds, for an hour, nothing is read.
  void AwaitRounds(uint64_t rounds) {
    while (rig_.Stat("scrub_rounds") < rounds) {
      const uint64_t waits = rig_.waiter.waits();
      rig_.clock.Advance(absl::Seconds(10));
      rig_.waiter.Await(waits);  // it has seen the new time
    }
  }
  CoreRig rig_;
};

TEST_F(CoreScrub, FindsWhatDecaysInEachTierRoundAfterRound) {
  const std::vector<Digest> chain = rig_.Chain(4);
  AwaitRounds(1);
  ASSERT_TRUE(rig_.PutAll(chain, true).ok());
  FlipOnDisk(rig_, {chain[1], kRows});
  FlipInHost(rig_, {chain[3], kCheckpoint});
  AwaitRounds(rig_.Stat("scrub_rounds") + 2);
  EXPECT_EQ(rig_.Stat("damaged_disk_rows_entries"), 1u);
  EXPECT_EQ(rig_.Stat("damaged_host_checkpoint_entries"), 1u);
  EXPECT_EQ(rig_.Stat("checksum_failures"), 2u);
  ASSERT_TRUE(rig_.core->Flush(absl::Seconds(10)).ok());
  FlipOnDisk(rig_, {chain[2], kRows});
  AwaitRounds(rig_.Stat("scrub_rounds") + 2);
  EXPECT_EQ(rig_.Stat("damaged_disk_rows_entries"), 2u);
  EXPECT_TRUE(rig_.Fetch(chain)->checkpoint.has_value());
  rig_.DropFromHost();
  EXPECT_TRUE(rig_.Fetch(chain)->checkpoint.has_value());
}

TEST_F(CoreScrub, ARoundIsNotFasterThanItsRateAndTheNextOneWaits) {
  for (int stem = 0; stem < 10; ++stem) ASSERT_TRUE(rig_.PutAll(rig_.Chain(4, stem), true).ok());
  rig_.Restart();
  AwaitRounds(1);
  const uint64_t bytes = rig_.Stat("scrub_round_bytes");
  EXPECT_EQ(bytes, 10 * (4 * 2148u + 5120u));
  EXPECT_GE(rig_.Stat("scrub_last_round_seconds") + 1, (bytes - 5120) / 100'000);
  const uint64_t verified = rig_.Stat("verified_entries");
  const int64_t began = rig_.clock.NowNanos();
  AwaitRounds(2);
  EXPECT_GE(absl::Nanoseconds(rig_.clock.NowNanos() - began), absl::Minutes(59));
  EXPECT_EQ(rig_.Stat("verified_entries"), 2 * verified);
}

TEST(CoreScrubOff, ARateOfNothingIsNoScrubbing) {
  CoreRig rig;
  ASSERT_TRUE(rig.PutAll(rig.Chain(2), true).ok());
  EXPECT_EQ(rig.Stat("scrub_rate_bytes"), 0u);
  EXPECT_EQ(rig.Stat("verified_entries"), 0u);
}

}  // namespace
}  // namespace cairn::cache
