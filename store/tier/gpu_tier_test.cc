// Goal: entries in GPU memory are found whole or not at all, pinned bytes stay where they are, and
// what one tenant left is zeroed before another gets it. Over the fake GPU, whose work is done when
// the test says so.
#include "store/tier/gpu_tier.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <thread>

#include "store/base/limits.h"
#include "store/device/fake_gpu.h"
#include "store/tier/tier_test_util.h"

namespace cairn::store {
namespace {

struct Rig {
  explicit Rig(uint64_t bytes = 64 << 10) : tier(*GpuTier::Create(gpu, bytes)) {}

  // Fills a room with payload and part table, as a mover's copy would, and publishes it.
  absl::Status Put(const TestEntry& entry) {
    CAIRN_ASSIGN_OR_RETURN(GpuRoom room,
                           tier->Reserve(entry.meta.payload_bytes(), entry.meta.parts.size()));
    const std::span<const uint8_t> payload = entry.payload.bytes();
    std::copy_n(payload.begin(), entry.meta.payload_bytes(), room.data());
    uint8_t* table = room.data() + PartTableOffset(entry.meta.payload_bytes());
    for (const EntryPart& part : entry.meta.parts) {
      std::memcpy(table, &part.xxh3, sizeof(part.xxh3));
      table += sizeof(part.xxh3);
    }
    return tier->Publish(entry.meta, std::move(room));
  }

  FakeGpu gpu;
  std::unique_ptr<GpuTier> tier;
};

bool AllZero(const uint8_t* at, uint64_t bytes) {
  return std::all_of(at, at + bytes, [](uint8_t byte) { return byte == 0; });
}

TEST(GpuTierTest, PublishesAndFinds) {
  Rig rig;
  const TestEntry entry = MakeEntry(1);
  EXPECT_FALSE(rig.tier->Find(entry.meta.key));
  ASSERT_TRUE(rig.Put(entry).ok());
  const GpuPin pin = rig.tier->Find(entry.meta.key);
  ASSERT_TRUE(pin);
  EXPECT_EQ(pin.meta().attributes, entry.meta.attributes);
  EXPECT_EQ(pin.extent().payload_bytes, 8000u);
  EXPECT_EQ(pin.extent().offset % kIoAlignment, 0u);
  const uint64_t table[] = {entry.meta.parts[0].xxh3, entry.meta.parts[1].xxh3};
  EXPECT_EQ(pin.extent().table_xxh3,
            Checksum({reinterpret_cast<const uint8_t*>(table), sizeof(table)}));
  EXPECT_TRUE(
      std::equal(pin.extent().payload, pin.extent().payload + 8000, entry.payload.bytes().begin()));
  EXPECT_TRUE(rig.tier->Check(pin).ok());
  EXPECT_EQ(rig.Put(entry).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(rig.tier->stats().entries, 1u);
}

TEST(GpuTierTest, TheOffsetHoldsInAnotherProcessesMapping) {
  Rig rig;
  const TestEntry entry = MakeEntry(1);
  ASSERT_TRUE(rig.Put(MakeEntry(2)).ok());
  ASSERT_TRUE(rig.Put(entry).ok());
  const GpuPin pin = rig.tier->Find(entry.meta.key);
  const auto mapped = rig.gpu.Import(*rig.tier->Export());
  ASSERT_TRUE(mapped.ok()) << mapped.status();
  EXPECT_EQ((*mapped)->bytes(), rig.tier->pool_bytes());
  const uint8_t* const there = (*mapped)->data() + pin.extent().offset;
  EXPECT_NE(there, pin.extent().payload);
  EXPECT_TRUE(std::equal(there, there + 8000, entry.payload.bytes().begin()));
}

TEST(GpuTierTest, CheckFindsAFlippedByteAndNamesItsPart) {
  Rig rig;
  const TestEntry entry = MakeEntry(1);
  ASSERT_TRUE(rig.Put(entry).ok());
  const GpuPin pin = rig.tier->Find(entry.meta.key);
  const_cast<uint8_t*>(pin.extent().payload)[5000] ^= 1;
  const absl::Status damaged = rig.tier->Check(pin);
  EXPECT_EQ(damaged.code(), absl::StatusCode::kDataLoss);
  EXPECT_NE(damaged.message().find("part 1 of 2"), absl::string_view::npos) << damaged;
  const_cast<uint8_t*>(pin.extent().payload)[5000] ^= 1;
  EXPECT_TRUE(rig.tier->Check(pin).ok());
  const_cast<uint8_t*>(pin.extent().payload)[8000] ^= 1;
  const absl::Status table = rig.tier->Check(pin);
  EXPECT_EQ(table.code(), absl::StatusCode::kDataLoss);
  EXPECT_NE(table.message().find("part table"), absl::string_view::npos) << table;
}

TEST(GpuTierTest, CheckTakesAsManyPartsAsAnEntryMayHave) {
  Rig rig(1 << 20);
  std::vector<uint32_t> parts;
  for (uint32_t i = 1; i <= kPartsPerEntryMax; ++i) parts.push_back(i);
  const TestEntry entry = MakeEntry(1, parts);
  ASSERT_TRUE(rig.Put(entry).ok());
  const GpuPin pin = rig.tier->Find(entry.meta.key);
  const absl::Status whole = rig.tier->Check(pin);
  EXPECT_TRUE(whole.ok()) << whole;
  const_cast<uint8_t*>(pin.extent().payload)[entry.meta.payload_bytes() - 1] ^= 1;
  const absl::Status damaged = rig.tier->Check(pin);
  EXPECT_NE(damaged.message().find("part 511 of 512"), absl::string_view::npos) << damaged;
}

TEST(GpuTierTest, ThePoolIsZeroedBeforeItsFirstTenant) {
  Rig rig;
  const auto room = rig.tier->Reserve(8000, 1);
  ASSERT_TRUE(room.ok()) << room.status();
  EXPECT_TRUE(AllZero(room->data(), room->bytes()));
}

TEST(GpuTierTest, WhatComesFreeIsZeroedBeforeItIsGivenOutAgain) {
  Rig rig(8 << 10);
  const TestEntry entry = MakeEntry(1);
  ASSERT_TRUE(rig.Put(entry).ok());
  ASSERT_TRUE(rig.tier->Erase(entry.meta.key));
  EXPECT_EQ(rig.tier->stats().unswept_bytes, 8192u);
  EXPECT_EQ(rig.tier->stats().used_bytes, 8192u);
  // Zeroing is begun by Reserve and is not done yet.
  EXPECT_EQ(rig.tier->Reserve(8000, 2).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(rig.gpu.waiting(), 2u);
  rig.gpu.RunAll();
  EXPECT_EQ(rig.tier->stats().unswept_bytes, 8192u) << "nobody looked yet";
  const auto room = rig.tier->Reserve(8000, 2);
  ASSERT_TRUE(room.ok()) << room.status();
  EXPECT_TRUE(AllZero(room->data(), room->bytes()));
  EXPECT_EQ(rig.tier->stats().unswept_bytes, 0u);
}

TEST(GpuTierTest, ADroppedRoomIsZeroedToo) {
  Rig rig(8 << 10);
  {
    const auto room = rig.tier->Reserve(8000, 2);
    std::fill_n(room->data(), room->bytes(), uint8_t{5});
  }
  ASSERT_TRUE(rig.tier->Settle().ok());
  const auto room = rig.tier->Reserve(8000, 2);
  ASSERT_TRUE(room.ok()) << room.status();
  EXPECT_TRUE(AllZero(room->data(), room->bytes()));
}

TEST(GpuTierTest, ErasedWhilePinnedStaysUntilTheLastPinFalls) {
  Rig rig(8 << 10);
  const TestEntry entry = MakeEntry(1);
  ASSERT_TRUE(rig.Put(entry).ok());
  {
    const GpuPin pin = rig.tier->Find(entry.meta.key);
    EXPECT_TRUE(rig.tier->Pinned(entry.meta.key));
    EXPECT_TRUE(rig.tier->Erase(pin));
    EXPECT_FALSE(rig.tier->Erase(pin));
    EXPECT_FALSE(rig.tier->Contains(entry.meta.key));
    ASSERT_TRUE(rig.tier->Settle().ok());
    EXPECT_EQ(rig.tier->stats().pinned_bytes, 8192u);
    EXPECT_EQ(rig.tier->Reserve(1, 1).status().code(), absl::StatusCode::kResourceExhausted);
    EXPECT_TRUE(rig.tier->Check(pin).ok());
  }
  ASSERT_TRUE(rig.tier->Settle().ok());
  EXPECT_EQ(rig.tier->stats().pinned_bytes, 0u);
  EXPECT_TRUE(rig.tier->Reserve(8000, 2).ok());
}

TEST(GpuTierTest, ManyArePinnedAtOnceUpToTheFirstThatIsMissing) {
  Rig rig;
  std::vector<Digest> digests;
  for (uint64_t i = 0; i < 5; ++i) {
    digests.push_back(TestKey(i).digest);
    if (i == 3) continue;
    ASSERT_TRUE(rig.Put(MakeEntry(i)).ok());
  }
  {
    GpuPins pins = rig.tier->FindAll(digests, EntryKind::kRows);
    ASSERT_EQ(pins.size(), 3u);
    EXPECT_EQ(pins[2].payload[7], MakeEntry(2).payload.bytes()[7]);
    pins.Add(rig.tier->Find(TestKey(4)));
    EXPECT_EQ(pins[3].payload[7], MakeEntry(4).payload.bytes()[7]);
    EXPECT_EQ(rig.tier->stats().pinned_bytes, 4 * 8192u);
  }
  EXPECT_EQ(rig.tier->stats().pinned_bytes, 0u);
}

TEST(GpuTierTest, NeitherFindingNorLettingGoCallsTheDevice) {
  Rig rig;
  ASSERT_TRUE(rig.Put(MakeEntry(1)).ok());
  GpuPin pin = rig.tier->Find(TestKey(1));
  const std::vector<Digest> digests = {TestKey(1).digest};
  EXPECT_EQ(rig.tier->FindAll(digests, EntryKind::kRows).size(), 1u);
  EXPECT_TRUE(rig.tier->Erase(TestKey(1)));
  pin = GpuPin();
  EXPECT_EQ(rig.gpu.waiting(), 0u);
  EXPECT_EQ(rig.tier->stats().unswept_bytes, 8192u);
}

TEST(GpuTierTest, ALostDeviceIsSaidAndItsBytesAreNotGivenOut) {
  Rig rig(8 << 10);
  ASSERT_TRUE(rig.Put(MakeEntry(1)).ok());
  EXPECT_TRUE(rig.tier->Erase(TestKey(1)));
  rig.gpu.FailNext();
  EXPECT_EQ(rig.tier->Settle().code(), absl::StatusCode::kInternal);
  EXPECT_EQ(rig.tier->Reserve(1, 1).status().code(), absl::StatusCode::kInternal);
  EXPECT_EQ(rig.tier->stats().unswept_bytes, 8192u);
}

TEST(GpuTierTest, APoolTheGpuHasNotIsRefusedWithItsSize) {
  FakeGpu gpu(1 << 20);
  const absl::Status refused = GpuTier::Create(gpu, 2 << 20).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(refused.message().find("2097152"), absl::string_view::npos) << refused;
}

TEST(GpuTierTest, ManyThreadsPutPinAndErase) {
  Rig rig(1 << 20);
  std::vector<TestEntry> entries;
  for (uint64_t i = 0; i < 20; ++i) entries.push_back(MakeEntry(i));
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&rig, &entries] {
      for (size_t round = 0; round < 200; ++round) {
        const TestEntry& entry = entries[round % entries.size()];
        const absl::Status put = rig.Put(entry);
        EXPECT_TRUE(put.ok() || absl::IsAlreadyExists(put)) << put;
        if (const GpuPin pin = rig.tier->Find(entry.meta.key); pin) {
          EXPECT_EQ(pin.extent().payload[7999], entry.payload.bytes()[7999]);
        }
        if (round % 3 == 0) rig.tier->Erase(entry.meta.key);
        rig.gpu.RunAll();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const TestEntry& entry : entries) rig.tier->Erase(entry.meta.key);
  ASSERT_TRUE(rig.tier->Settle().ok());
  EXPECT_EQ(rig.tier->stats().used_bytes, 0u);
  EXPECT_EQ(rig.tier->stats().unswept_bytes, 0u);
}

}  // namespace
}  // namespace cairn::store
