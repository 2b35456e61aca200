// Goal: what lies in the room after Copy is what was put, from wherever the GPU read it; anything
// else is DATA_LOSS, and the next copies are whole again. Method: entries in regions and in pinned
// memory of the fake GPU, which refuses to read anything else.
#include "cache/client/gpu_copy_out.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "store/base/checksum.h"
#include "store/base/limits.h"
#include "store/base/random.h"
#include "store/device/fake_gpu.h"

namespace cairn::cache {
namespace {

constexpr uint64_t kRoom = 8192;

class GpuCopyOutTest : public testing::Test {
 protected:
  // An entry of such parts as it lies in an arena, its table behind it.
  struct Stored {
    std::vector<uint32_t> part_bytes;
    std::vector<uint8_t> bytes;
    EntryView view;
  };

  void SetUp() override { ASSERT_TRUE(pool_.ok() && copy_.ok()); }
  Stored& Make(const std::vector<uint32_t>& part_bytes) {
    Stored& stored = *entries_.emplace_back(std::make_unique<Stored>());
    stored.part_bytes = part_bytes;
    uint64_t payload = 0;
    for (const uint32_t part : part_bytes) payload += part;
    const uint64_t table_at = PartTableOffset(payload);
    stored.bytes.resize(table_at + part_bytes.size() * sizeof(uint64_t));
    random_.Fill(std::span(stored.bytes).first(payload));
    std::vector<uint64_t> sums;
    std::span<const uint8_t> rest = stored.bytes;
    for (const uint32_t part : part_bytes) {
      sums.push_back(Checksum(rest.first(part)));
      rest = rest.subspan(part);
    }
    std::memcpy(stored.bytes.data() + table_at, sums.data(), sums.size() * sizeof(uint64_t));
    stored.view.payload = std::span(stored.bytes).first(payload);
    stored.view.part_bytes = stored.part_bytes;
    stored.view.part_table = stored.bytes.data() + table_at;
    stored.view.table_xxh3 = Checksum(std::span(stored.bytes).subspan(table_at));
    return stored;
  }
  EntryView& InPool(Stored& stored) {
    std::ranges::copy(stored.bytes, PoolAt(pool_used_).begin());
    stored.view.gpu = (*pool_)->data() + pool_used_;
    pool_used_ += stored.bytes.size();
    return stored.view;
  }
  EntryView& Pinned(Stored& stored) {
    pins_.push_back(*gpu_.Pin(stored.bytes, store::PinnedUse::kReadOnly));
    stored.view.pinned = true;
    return stored.view;
  }
  std::span<uint8_t> PoolAt(uint64_t offset) {
    return store::FakeGpu::BytesOf(**pool_).subspan(offset);
  }
  // Where it was said to lie.
  void ExpectThere(const uint8_t* at, const EntryView& entry) const {
    EXPECT_EQ(std::memcmp(at, entry.payload.data(), entry.payload.size()), 0);
  }

  store::FakeGpu gpu_;
  SeededRandom random_{7};
  const absl::StatusOr<std::unique_ptr<store::GpuRegion>> pool_ =
      gpu_.Allocate(64 << 10, store::GpuSharing::kPrivate);
  uint64_t pool_used_ = 0;
  std::vector<std::unique_ptr<Stored>> entries_;
  std::vector<std::unique_ptr<store::Gpu::Pinned>> pins_;
  const absl::StatusOr<std::unique_ptr<GpuCopyOut>> copy_ = GpuCopyOut::Create(gpu_, kRoom);
  GpuCopyOut& copier() { return **copy_; }
};

TEST_F(GpuCopyOutTest, FromThePoolAndFromPinnedMemoryOfAnySizes) {
  const EntryView* const views[] = {&InPool(Make({100, 7})), &InPool(Make({100, 7})),
                                    &Pinned(Make({100, 7})), &Pinned(Make({513})),
                                    &InPool(Make({1, 2, 3, 4}))};
  for (int turn = 0; turn < 2; ++turn) {
    std::vector<const uint8_t*> at;
    for (const EntryView* view : views) {
      ASSERT_TRUE(copier().CanRead(*view) && copier().HasRoom(*view));
      at.push_back(*copier().Add(*view));
      EXPECT_EQ(reinterpret_cast<uintptr_t>(at.back()) % 256, 0u);
    }
    ASSERT_TRUE(copier().Copy().ok());
    for (size_t i = 0; i < at.size(); ++i) ExpectThere(at[i], *views[i]);
    EXPECT_TRUE(copier().Copy().ok()) << "of nothing";
  }
}

TEST_F(GpuCopyOutTest, WhatItCannotReadIsNotItsOwn) {
  EXPECT_FALSE(copier().CanRead(Make({100}).view)) << "neither in the pool nor pinned";
  const EntryView& large = InPool(Make({kRoom - 8 + 1}));
  EXPECT_FALSE(copier().CanRead(large));
  const EntryView& whole = InPool(Make({kRoom - 8}));
  ASSERT_TRUE(copier().CanRead(whole) && copier().HasRoom(whole));
  const uint8_t* const at = *copier().Add(whole);
  EXPECT_FALSE(copier().HasRoom(InPool(Make({1}))));
  ASSERT_TRUE(copier().Copy().ok());
  ExpectThere(at, whole);
  EXPECT_TRUE(copier().HasRoom(whole)) << "none are added any more";
}

TEST_F(GpuCopyOutTest, OneDamagedByteIsDataLossAndTheNextIsWhole) {
  const EntryView& first = InPool(Make({40, 300}));
  const EntryView& second = InPool(Make({40, 300}));
  for (const uint64_t damaged : {uint64_t{0}, uint64_t{339}, PartTableOffset(340) + 3}) {
    uint8_t& byte = PoolAt(static_cast<uint64_t>(second.gpu - first.gpu) + damaged)[0];
    byte ^= 4;
    ASSERT_TRUE(copier().Add(first).ok() && copier().Add(second).ok());
    EXPECT_TRUE(absl::IsDataLoss(copier().Copy())) << damaged;
    byte ^= 4;
    const uint8_t* const at = *copier().Add(second);
    ASSERT_TRUE(copier().Copy().ok()) << damaged;
    ExpectThere(at, second);
  }
}

TEST_F(GpuCopyOutTest, ATableThatIsNotTheLeasedOneIsRefusedAndNothingOfItIsLeft) {
  Stored& stored = Make({40, 300});
  const EntryView& whole = InPool(Make({64}));
  EntryView wrong = InPool(stored);
  wrong.table_xxh3 ^= 1;
  ASSERT_TRUE(copier().Add(whole).ok());
  EXPECT_TRUE(absl::IsDataLoss(copier().Add(wrong).status()));
  copier().Drop();
  PoolAt(0)[0] ^= 1;  // would be found, were it still there
  EXPECT_TRUE(copier().Copy().ok());
}

TEST_F(GpuCopyOutTest, ALostDeviceIsAnErrorAndNotDamage) {
  ASSERT_TRUE(copier().Add(InPool(Make({64}))).ok());
  gpu_.FailNext();
  EXPECT_TRUE(absl::IsInternal(copier().Copy()));
}

}  // namespace
}  // namespace cairn::cache
