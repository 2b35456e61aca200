// Goal: a move shows its entry only when the copy has arrived and is what it should be, and leaves
// both tiers as they were when it fails, is cancelled or the device is lost. Over the fake GPU.
#include "store/tier/gpu_mover.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "store/base/checksum.h"
#include "store/device/fake_gpu.h"
#include "store/tier/tier_test_util.h"

namespace cairn::store {
namespace {

constexpr uint64_t kRoom = 8192;  // what a TestEntry takes

struct Rig {
  explicit Rig(uint64_t gpu_entries = 8, GpuMover::Options options = {})
      : tier(*GpuTier::Create(gpu, gpu_entries * kRoom)),
        mover(*GpuMover::Create(gpu, *host, *tier, options)) {}

  absl::Status PutOnHost(const TestEntry& entry) {
    CAIRN_ASSIGN_OR_RETURN(HostRoom room,
                           host->Reserve(entry.meta.payload_bytes(), entry.meta.parts.size()));
    std::copy_n(entry.payload.bytes().begin(), entry.meta.payload_bytes(), room.bytes().begin());
    return host->Publish(entry.meta, std::move(room));
  }
  GpuMover::Done Note() {
    return [this](const EntryKey& key, const absl::Status& status) { told[key] = status; };
  }
  absl::Status Promote(uint64_t number) {
    return mover->Promote(*host->Find(TestKey(number)), Note());
  }
  absl::Status Demote(uint64_t number) {
    return mover->Demote(tier->Find(TestKey(number)), Note());
  }
  // Until nothing is waiting or under way.
  void Finish() {
    do {
      mover->Step();
    } while (mover->Wait());
  }
  absl::StatusCode Told(uint64_t number) {
    const auto found = told.find(TestKey(number));
    return found == told.end() ? absl::StatusCode::kUnknown : found->second.code();
  }

  FakeGpu gpu;
  std::unique_ptr<HostTier> host =
      *HostTier::Create({.capacity_bytes = 64 * kRoom, .memory = ArenaMemory::kAtUse});
  std::unique_ptr<Gpu::Pinned> pinned = *gpu.Pin(host->arena(), PinnedUse::kReadWrite);
  std::unique_ptr<GpuTier> tier;
  std::unique_ptr<GpuMover> mover;
  std::map<EntryKey, absl::Status> told;
};

TEST(GpuMoverTest, AnEntryIsFoundWhenItsCopyHasArrivedAndNoSooner) {
  Rig rig;
  const TestEntry entry = MakeEntry(1);
  ASSERT_TRUE(rig.PutOnHost(entry).ok());
  ASSERT_TRUE(rig.Promote(1).ok());
  EXPECT_EQ(rig.mover->stats().waiting_entries, 1u);
  rig.mover->Step();
  EXPECT_EQ(rig.mover->stats().underway_bytes, 8000u);
  rig.mover->Step();
  EXPECT_FALSE(rig.tier->Contains(entry.meta.key));
  EXPECT_TRUE(rig.told.empty());
  rig.gpu.RunAll();
  EXPECT_FALSE(rig.tier->Contains(entry.meta.key));
  rig.mover->Step();
  EXPECT_EQ(rig.Told(1), absl::StatusCode::kOk);
  const GpuPin pin = rig.tier->Find(entry.meta.key);
  ASSERT_TRUE(pin);
  EXPECT_EQ(pin.meta().parts, entry.meta.parts);
  EXPECT_EQ(pin.meta().attributes, entry.meta.attributes);
  EXPECT_TRUE(rig.tier->Check(pin).ok());
  // The part table came along.
  const std::span<const uint8_t> table(pin.extent().payload + PartTableOffset(8000), 16);
  EXPECT_EQ(Checksum(table), pin.extent().table_xxh3);
  EXPECT_FALSE(rig.host->Pinned(entry.meta.key)) << "the move's hold is gone";
  EXPECT_EQ(rig.mover->stats().promoted_bytes, 8000u);
}

TEST(GpuMoverTest, UpAndDownAgainIsTheSameEntry) {
  Rig rig;
  const TestEntry entry = MakeEntry(1);
  ASSERT_TRUE(rig.PutOnHost(entry).ok());
  ASSERT_TRUE(rig.Promote(1).ok());
  rig.Finish();
  ASSERT_TRUE(rig.host->Erase(entry.meta.key));
  ASSERT_TRUE(rig.Demote(1).ok());
  rig.mover->Step();
  EXPECT_FALSE(rig.host->Contains(entry.meta.key));
  rig.Finish();
  EXPECT_EQ(rig.Told(1), absl::StatusCode::kOk);
  const auto pin = rig.host->Find(entry.meta.key);
  ASSERT_TRUE(pin.has_value());
  EXPECT_EQ(pin->meta().parts, entry.meta.parts);
  EXPECT_TRUE(pin->TableIntact());
  EXPECT_TRUE(
      std::equal(pin->payload().begin(), pin->payload().end(), entry.payload.bytes().begin()));
  EXPECT_TRUE(rig.tier->Contains(entry.meta.key)) << "whose it is decides when it goes";
  EXPECT_EQ(rig.mover->stats().demoted_entries, 1u);
}

TEST(GpuMoverTest, DamageOnTheHostDoesNotGoUp) {
  Rig rig;
  ASSERT_TRUE(rig.PutOnHost(MakeEntry(1)).ok());
  const auto pin = rig.host->Find(TestKey(1));
  const_cast<uint8_t*>(pin->payload().data())[7999] ^= 1;
  ASSERT_TRUE(rig.Promote(1).ok());
  rig.Finish();
  EXPECT_EQ(rig.Told(1), absl::StatusCode::kDataLoss);
  EXPECT_FALSE(rig.tier->Contains(TestKey(1)));
  EXPECT_TRUE(rig.host->Contains(TestKey(1)));
  ASSERT_TRUE(rig.tier->Settle().ok());
  EXPECT_EQ(rig.tier->stats().used_bytes, 0u);
}

TEST(GpuMoverTest, ADamagedOneDoesNotHoldUpThoseBesideIt) {
  Rig rig;
  for (uint64_t i = 1; i <= 3; ++i) ASSERT_TRUE(rig.PutOnHost(MakeEntry(i)).ok());
  // Other sizes in between, which are checked apart.
  ASSERT_TRUE(rig.PutOnHost(MakeEntry(4, {300, 7000, 10})).ok());
  const_cast<uint8_t*>(rig.host->Find(TestKey(2))->payload().data())[5000] ^= 0x80;
  for (const uint64_t i : {1, 4, 2, 3}) ASSERT_TRUE(rig.Promote(i).ok());
  rig.Finish();
  for (const uint64_t i : {1, 3, 4}) EXPECT_EQ(rig.Told(i), absl::StatusCode::kOk) << i;
  EXPECT_EQ(rig.Told(2), absl::StatusCode::kDataLoss);
  EXPECT_EQ(rig.tier->stats().entries, 3u);
}

TEST(GpuMoverTest, DamageOnTheGpuDoesNotComeDown) {
  Rig rig;
  ASSERT_TRUE(rig.PutOnHost(MakeEntry(1)).ok());
  ASSERT_TRUE(rig.Promote(1).ok());
  rig.Finish();
  ASSERT_TRUE(rig.host->Erase(TestKey(1)));
  const_cast<uint8_t*>(rig.tier->Find(TestKey(1)).extent().payload)[0] ^= 1;
  ASSERT_TRUE(rig.Demote(1).ok());
  rig.Finish();
  EXPECT_EQ(rig.Told(1), absl::StatusCode::kDataLoss);
  EXPECT_FALSE(rig.host->Contains(TestKey(1)));
  EXPECT_EQ(rig.host->stats().used_bytes, 0u);
}

TEST(GpuMoverTest, BytesUnderWayAreBounded) {
  Rig rig(8, {.underway_bytes_max = 20'000});
  for (uint64_t i = 0; i < 5; ++i) {
    ASSERT_TRUE(rig.PutOnHost(MakeEntry(i)).ok());
    ASSERT_TRUE(rig.Promote(i).ok());
  }
  rig.mover->Step();
  EXPECT_EQ(rig.mover->stats().underway_bytes, 16'000u);
  EXPECT_EQ(rig.mover->stats().waiting_entries, 3u);
  rig.Finish();
  EXPECT_EQ(rig.mover->stats().promoted_entries, 5u);
  EXPECT_EQ(rig.mover->stats().underway_bytes, 0u);
}

TEST(GpuMoverTest, AnEntryLargerThanTheBoundGoesAlone) {
  Rig rig(8, {.underway_bytes_max = 100});
  for (uint64_t i = 0; i < 2; ++i) {
    ASSERT_TRUE(rig.PutOnHost(MakeEntry(i)).ok());
    ASSERT_TRUE(rig.Promote(i).ok());
  }
  rig.mover->Step();
  EXPECT_EQ(rig.mover->stats().underway_bytes, 8000u);
  rig.Finish();
  EXPECT_EQ(rig.mover->stats().promoted_entries, 2u);
}

TEST(GpuMoverTest, TooManyWaitingAreRefused) {
  Rig rig(8, {.waiting_entries_max = 1});
  ASSERT_TRUE(rig.PutOnHost(MakeEntry(1)).ok());
  ASSERT_TRUE(rig.Promote(1).ok());
  EXPECT_EQ(rig.Promote(1).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(rig.told.empty());
}

TEST(GpuMoverTest, CancelledWhileWaitingAndUnderWay) {
  Rig rig(8, {.underway_bytes_max = 8000});
  for (uint64_t i = 1; i <= 2; ++i) {
    ASSERT_TRUE(rig.PutOnHost(MakeEntry(i)).ok());
    ASSERT_TRUE(rig.Promote(i).ok());
  }
  rig.mover->Step();
  ASSERT_EQ(rig.mover->stats().waiting_entries, 1u);
  rig.mover->Cancel(TestKey(1));
  rig.mover->Cancel(TestKey(2));
  rig.mover->Step();
  // Its copy is still writing: the room is not free.
  EXPECT_EQ(rig.tier->stats().used_bytes, kRoom);
  EXPECT_EQ(rig.tier->stats().unswept_bytes, 0u);
  EXPECT_EQ(rig.Told(1), absl::StatusCode::kUnknown);
  rig.Finish();
  EXPECT_EQ(rig.Told(1), absl::StatusCode::kAborted);
  EXPECT_EQ(rig.Told(2), absl::StatusCode::kAborted);
  EXPECT_EQ(rig.tier->stats().entries, 0u);
  EXPECT_FALSE(rig.host->Pinned(TestKey(1)));
  ASSERT_TRUE(rig.tier->Settle().ok());
  EXPECT_EQ(rig.tier->stats().used_bytes, 0u);
}

TEST(GpuMoverTest, WithoutRoomTheCallerIsToldAndMayEvict) {
  Rig rig(1);
  for (uint64_t i = 1; i <= 2; ++i) ASSERT_TRUE(rig.PutOnHost(MakeEntry(i)).ok());
  ASSERT_TRUE(rig.Promote(1).ok());
  ASSERT_TRUE(rig.Promote(2).ok());
  rig.Finish();
  EXPECT_EQ(rig.Told(1), absl::StatusCode::kOk);
  EXPECT_EQ(rig.Told(2), absl::StatusCode::kResourceExhausted);
  // What is being zeroed is waited for.
  ASSERT_TRUE(rig.tier->Erase(TestKey(1)));
  ASSERT_TRUE(rig.Promote(2).ok());
  rig.mover->Step();
  EXPECT_EQ(rig.mover->stats().waiting_entries, 1u);
  rig.Finish();
  EXPECT_EQ(rig.Told(2), absl::StatusCode::kOk);
  EXPECT_TRUE(rig.tier->Check(rig.tier->Find(TestKey(2))).ok());
}

TEST(GpuMoverTest, TheSameEntryTwiceGoesUpOnce) {
  Rig rig;
  ASSERT_TRUE(rig.PutOnHost(MakeEntry(1)).ok());
  ASSERT_TRUE(rig.Promote(1).ok());
  ASSERT_TRUE(rig.Promote(1).ok());
  rig.Finish();
  EXPECT_EQ(rig.mover->stats().promoted_entries, 1u);
  EXPECT_EQ(rig.mover->stats().failed_entries, 1u);
  ASSERT_TRUE(rig.Promote(1).ok());
  rig.Finish();
  EXPECT_EQ(rig.Told(1), absl::StatusCode::kAlreadyExists);
  ASSERT_TRUE(rig.Demote(1).ok());
  rig.Finish();
  EXPECT_EQ(rig.Told(1), absl::StatusCode::kAlreadyExists);
  ASSERT_TRUE(rig.tier->Settle().ok());
  EXPECT_EQ(rig.tier->stats().used_bytes, kRoom);
  EXPECT_EQ(rig.host->stats().used_bytes, kRoom);
}

TEST(GpuMoverTest, ALostDeviceLeavesTheHostWholeAndItsRoomsUntouched) {
  Rig rig;
  for (uint64_t i = 1; i <= 3; ++i) ASSERT_TRUE(rig.PutOnHost(MakeEntry(i)).ok());
  ASSERT_TRUE(rig.Promote(1).ok());
  rig.Finish();
  ASSERT_TRUE(rig.host->Erase(TestKey(1)));
  const uint64_t host_bytes = rig.host->stats().used_bytes;
  ASSERT_TRUE(rig.Demote(1).ok());
  ASSERT_TRUE(rig.Promote(2).ok());
  rig.mover->Step();
  rig.gpu.FailNext();
  ASSERT_TRUE(rig.Promote(3).ok());
  rig.Finish();
  for (uint64_t i = 1; i <= 3; ++i) EXPECT_EQ(rig.Told(i), absl::StatusCode::kInternal) << i;
  EXPECT_FALSE(rig.host->Contains(TestKey(1)));
  EXPECT_TRUE(rig.host->Contains(TestKey(2)));
  // Nobody knows whether the device still writes there.
  EXPECT_EQ(rig.host->stats().used_bytes, host_bytes + kRoom);
}

TEST(GpuMoverTest, EndsWithWorkUnderWay) {
  Rig rig;
  ASSERT_TRUE(rig.PutOnHost(MakeEntry(1)).ok());
  ASSERT_TRUE(rig.PutOnHost(MakeEntry(2)).ok());
  ASSERT_TRUE(rig.Promote(1).ok());
  rig.mover->Step();
  ASSERT_TRUE(rig.Promote(2).ok());
  rig.mover.reset();
  EXPECT_TRUE(rig.told.empty());
  EXPECT_FALSE(rig.host->Pinned(TestKey(1)));
  EXPECT_EQ(rig.tier->stats().entries, 0u);
  ASSERT_TRUE(rig.tier->Settle().ok());
  EXPECT_EQ(rig.tier->stats().used_bytes, 0u);
}

}  // namespace
}  // namespace cairn::store
