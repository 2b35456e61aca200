// Goal: entries are visible whole or not at all, and pinned bytes stay where they are.
#include "store/tier/host_tier.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <thread>

#include "store/base/checksum.h"
#include "store/base/limits.h"
#include "store/base/random.h"
#include "store/tier/arena_allocator.h"

namespace cairn::store {
namespace {

std::unique_ptr<HostTier> MakeTier(uint64_t bytes) {
  auto tier = HostTier::Create({.capacity_bytes = bytes, .memory = ArenaMemory::kAtUse});
  EXPECT_TRUE(tier.ok()) << tier.status();
  return *std::move(tier);
}

EntryMeta Meta(uint8_t number, uint32_t bytes) {
  EntryMeta meta;
  meta.key.digest.bytes[0] = number;
  meta.parts = {{.bytes = bytes, .xxh3 = 0}};
  return meta;
}

absl::Status Put(HostTier& tier, uint8_t number, uint32_t bytes) {
  CAIRN_ASSIGN_OR_RETURN(HostRoom room, tier.Reserve(bytes, 1));
  std::fill(room.bytes().begin(), room.bytes().end(), number);
  return tier.Publish(Meta(number, bytes), std::move(room));
}

TEST(HostTierTest, PublishesAndFinds) {
  const auto tier = MakeTier(1 << 20);
  EXPECT_EQ(tier->arena_bytes(), 1u << 20);
  EXPECT_FALSE(tier->Find(Meta(1, 5000).key).has_value());
  ASSERT_TRUE(Put(*tier, 1, 5000).ok());
  const auto pin = tier->Find(Meta(1, 5000).key);
  ASSERT_TRUE(pin.has_value());
  EXPECT_EQ(pin->payload().size(), 5000u);
  EXPECT_EQ(pin->payload()[4999], 1);
  EXPECT_EQ(pin->offset() % kIoAlignment, 0u);
  EXPECT_TRUE(tier->Contains(Meta(1, 0).key));
  EXPECT_EQ(tier->stats().used_bytes, 8192u);
}

TEST(HostTierTest, MemoryComesInTheBackgroundAndLeavesEntriesAlone) {
  auto tier = HostTier::Create(
      {.capacity_bytes = 16 << 20, .memory = ArenaMemory::kInBackground, .memory_failed = nullptr});
  ASSERT_TRUE(tier.ok()) << tier.status();
  uint8_t number = 0;
  while (Put(**tier, ++number, 100'000).ok()) {
  }
  while ((*tier)->stats().touched_bytes < (*tier)->arena_bytes()) std::this_thread::yield();
  for (uint8_t i = 1; i < number; ++i) {
    const auto pin = (*tier)->Find(Meta(i, 0).key);
    ASSERT_TRUE(pin.has_value());
    const std::span<const uint8_t> bytes = pin->payload();
    EXPECT_TRUE(std::all_of(bytes.begin(), bytes.end(), [i](uint8_t byte) { return byte == i; }));
  }
}

TEST(HostTierTest, AnUnpublishedRoomIsInvisibleAndReturns) {
  const auto tier = MakeTier(1 << 20);
  {
    auto room = tier->Reserve(5000, 1);
    ASSERT_TRUE(room.ok());
    EXPECT_EQ(room->bytes().size(), 8192u);
    EXPECT_EQ(tier->stats().used_bytes, 8192u);
    HostRoom moved = *std::move(room);
    EXPECT_EQ(moved.bytes().size(), 8192u);
  }
  EXPECT_EQ(tier->stats().used_bytes, 0u);
  EXPECT_EQ(tier->stats().entries, 0u);
}

TEST(HostTierTest, ASecondEntryOfAKeyIsRefusedAndItsRoomReturns) {
  const auto tier = MakeTier(1 << 20);
  ASSERT_TRUE(Put(*tier, 1, 5000).ok());
  const uint64_t offset = tier->Find(Meta(1, 0).key)->offset();
  EXPECT_EQ(Put(*tier, 1, 5000).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(tier->stats().used_bytes, 8192u);
  EXPECT_EQ(tier->Find(Meta(1, 0).key)->offset(), offset);
}

TEST(HostTierTest, RefusesSizesThatDoNotFitTheRoom) {
  const auto tier = MakeTier(1 << 20);
  EXPECT_EQ(tier->Publish(Meta(1, 9000), *tier->Reserve(5000, 1)).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(tier->Publish(Meta(1, 100), HostRoom()).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(tier->Reserve(0, 1).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(tier->Reserve(kEntryBytesMax + 1, 1).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(tier->stats().used_bytes, 0u);
}

TEST(HostTierTest, AFullArenaIsRefusedAndServesAgainAfterErase) {
  const auto tier = MakeTier(64 << 10);
  for (uint8_t i = 0; i < 16; ++i) ASSERT_TRUE(Put(*tier, i, 4000).ok());
  EXPECT_EQ(tier->Reserve(1, 1).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(tier->Erase(Meta(3, 0).key));
  EXPECT_FALSE(tier->Erase(Meta(3, 0).key));
  EXPECT_FALSE(tier->Contains(Meta(3, 0).key));
  EXPECT_TRUE(tier->Reserve(4000, 1).ok());
}

TEST(HostTierTest, ErasedWhilePinnedStaysUntilTheLastPinFalls) {
  const auto tier = MakeTier(8192);
  ASSERT_TRUE(Put(*tier, 1, 8184).ok());
  auto first = tier->Find(Meta(1, 0).key);
  auto second = tier->Find(Meta(1, 0).key);
  EXPECT_TRUE(tier->Pinned(Meta(1, 0).key));
  EXPECT_EQ(tier->stats().pinned_bytes, 8192u);
  EXPECT_TRUE(tier->Erase(Meta(1, 0).key));
  EXPECT_FALSE(tier->Contains(Meta(1, 0).key));
  EXPECT_FALSE(tier->Find(Meta(1, 0).key).has_value());
  EXPECT_EQ(tier->Reserve(4096, 1).status().code(), absl::StatusCode::kResourceExhausted);
  first.reset();
  EXPECT_EQ(tier->Reserve(4096, 1).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(second->payload()[8183], 1);
  second.reset();
  EXPECT_TRUE(tier->Reserve(8184, 1).ok());
  EXPECT_EQ(tier->stats().pinned_bytes, 0u);
}

TEST(HostTierTest, ThePartTableLiesBehindThePayload) {
  const auto tier = MakeTier(1 << 20);
  EntryMeta meta = Meta(1, 5001);
  meta.parts = {{.bytes = 5000, .xxh3 = 0x1111}, {.bytes = 1, .xxh3 = 0x2222}};
  auto room = tier->Reserve(5001, 2);
  ASSERT_TRUE(room.ok());
  const std::span<uint8_t> bytes = room->bytes();
  const uint64_t offset = room->offset();
  ASSERT_TRUE(tier->Publish(meta, *std::move(room)).ok());
  const HostPins pins = tier->FindAll({&meta.key.digest, 1}, EntryKind::kRows);
  ASSERT_EQ(pins.size(), 1u);
  EXPECT_EQ(pins[0].offset, offset);
  EXPECT_EQ(pins[0].payload.data(), bytes.data());
  EXPECT_EQ(pins[0].payload.size(), 5001u);
  ASSERT_EQ(pins[0].part_xxh3.size(), 2u);
  const uint64_t expected[] = {0x1111, 0x2222};
  EXPECT_EQ(std::memcmp(bytes.data() + 5008, expected, sizeof(expected)), 0);
  EXPECT_EQ(pins[0].part_xxh3[1], 0x2222u);
  EXPECT_EQ(pins[0].table_xxh3, Checksum(bytes.subspan(5008, 16)));
  const auto pin = tier->Find(meta.key);
  EXPECT_TRUE(pin->TableIntact());
  bytes[5008] ^= 1;
  EXPECT_FALSE(pin->TableIntact());
}

TEST(HostTierTest, RoomIsMadeForTheTableToo) {
  const auto tier = MakeTier(1 << 20);
  EXPECT_EQ(tier->Reserve(4088, 1)->bytes().size(), 4096u);
  EXPECT_EQ(tier->Reserve(4089, 1)->bytes().size(), 8192u);
  EXPECT_EQ(tier->Reserve(4080, 3)->bytes().size(), 8192u);
  EXPECT_EQ(tier->Reserve(100, 0).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(tier->Reserve(100, kPartsPerEntryMax + 1).status().code(),
            absl::StatusCode::kInvalidArgument);
  // More parts than were reserved.
  EntryMeta meta = Meta(1, 4080);
  meta.parts = {{.bytes = 4000, .xxh3 = 1}, {.bytes = 40, .xxh3 = 1}, {.bytes = 40, .xxh3 = 1}};
  EXPECT_EQ(tier->Publish(meta, *tier->Reserve(4080, 2)).code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(HostTierTest, ManyArePinnedAtOnceUpToTheFirstThatIsMissing) {
  const auto tier = MakeTier(1 << 20);
  std::vector<EntryKey> keys;
  std::vector<Digest> digests;
  for (uint8_t i = 0; i < 6; ++i) {
    keys.push_back(Meta(i, 0).key);
    digests.push_back(keys.back().digest);
    if (i == 4) continue;
    ASSERT_TRUE(Put(*tier, i, 5000).ok());
  }
  {
    HostPins pins = tier->FindAll(digests, EntryKind::kRows);
    ASSERT_EQ(pins.size(), 4u);
    EXPECT_EQ(pins[3].payload[4999], 3);
    EXPECT_EQ(tier->stats().pinned_bytes, 4 * 8192u);
    EXPECT_TRUE(tier->Pinned(keys[3]));
    EXPECT_FALSE(tier->Pinned(keys[5]));
    EXPECT_EQ(tier->FindAll(digests, EntryKind::kCheckpoint).size(), 0u);
    pins.Add(*tier->Find(keys[5]));
    EXPECT_EQ(pins[4].payload[0], 5);
    EXPECT_TRUE(tier->Erase(keys[0]));
    const HostPins moved = std::move(pins);
    EXPECT_EQ(moved[0].payload[0], 0);
    EXPECT_EQ(tier->stats().pinned_bytes, 5 * 8192u);
  }
  EXPECT_EQ(tier->stats().pinned_bytes, 0u);
  EXPECT_EQ(tier->stats().used_bytes, 4 * 8192u);  // the erased one's room is back
}

TEST(HostTierTest, ManyThreadsPutPinAndErase) {
  const auto tier = MakeTier(4 << 20);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&tier] {
      for (int round = 0; round < 300; ++round) {
        const auto number = static_cast<uint8_t>(round % 20);
        const absl::Status put = Put(*tier, number, 20'000);
        EXPECT_TRUE(put.ok() || absl::IsAlreadyExists(put)) << put;
        if (const auto pin = tier->Find(Meta(number, 0).key); pin.has_value()) {
          EXPECT_EQ(pin->payload()[0], number);
          EXPECT_EQ(pin->payload()[19'999], number);
        }
        if (round % 3 == 0) tier->Erase(Meta(number, 0).key);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (uint8_t i = 0; i < 20; ++i) tier->Erase(Meta(i, 0).key);
  EXPECT_EQ(tier->stats().used_bytes, 0u);
  EXPECT_EQ(tier->stats().pinned_bytes, 0u);
}

TEST(ArenaAllocatorTest, PrefersTheTightestExtent) {
  ArenaAllocator allocator(100);
  ASSERT_EQ(allocator.Take(10), 0u);
  ASSERT_EQ(allocator.Take(20), 10u);
  ASSERT_EQ(allocator.Take(10), 30u);
  allocator.Return(10, 20);
  EXPECT_EQ(allocator.Take(15), 10u);  // not from the 60 at the end
  EXPECT_EQ(allocator.Take(5), 25u);
  EXPECT_EQ(allocator.Take(61), std::nullopt);
}

TEST(ArenaAllocatorTest, JoinsNeighboursWhateverTheOrder) {
  SeededRandom random(1);
  ArenaAllocator allocator(1 << 16);
  std::vector<std::pair<uint64_t, uint64_t>> taken;
  uint64_t sum = 0;
  for (int i = 0; i < 20'000; ++i) {
    if (random.Next() % 2 == 0) {
      const uint64_t bytes = 1 + random.Next() % 700;
      if (const auto offset = allocator.Take(bytes)) {
        taken.emplace_back(*offset, bytes);
        sum += bytes;
      }
    } else if (!taken.empty()) {
      std::swap(taken[random.Next() % taken.size()], taken.back());
      allocator.Return(taken.back().first, taken.back().second);
      sum -= taken.back().second;
      taken.pop_back();
    }
    ASSERT_EQ(allocator.free_bytes() + sum, 1u << 16);
  }
  std::sort(taken.begin(), taken.end());
  for (size_t i = 1; i < taken.size(); ++i) {
    EXPECT_LE(taken[i - 1].first + taken[i - 1].second, taken[i].first);
  }
  for (const auto& [offset, bytes] : taken) allocator.Return(offset, bytes);
  EXPECT_EQ(allocator.extents(), 1u);
  EXPECT_EQ(allocator.largest_free(), 1u << 16);
}

}  // namespace
}  // namespace cairn::store
