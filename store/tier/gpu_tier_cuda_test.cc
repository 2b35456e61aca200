// Goal: the GPU tier and its mover over a real GPU keep every byte: up, in place, down, and into a
// session; and what they leave is zeroed. Their logic is tested over the fake one. Skipped, saying
// why, where there is no GPU.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "store/device/gpu_restore.h"
#include "store/tier/gpu_mover.h"
#include "store/tier/gpu_tier.h"
#include "store/tier/host_tier.h"
#include "store/tier/tier_test_util.h"

namespace cairn::store {
namespace {

// Two layers of a block and what a short row looks like: not a multiple of 16.
const std::vector<uint32_t> kParts = {18688, 2176, 18688, 2176, 584, 584};
constexpr uint64_t kEntries = 100;

class GpuTierCudaTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto gpu = OpenGpu();
    if (absl::IsUnavailable(gpu.status())) GTEST_SKIP() << gpu.status().message();
    ASSERT_TRUE(gpu.ok()) << gpu.status();
    gpu_ = *std::move(gpu);
    for (uint64_t i = 0; i < kEntries; ++i) entries_.push_back(MakeEntry(i, kParts));
    const uint64_t room = HostRoomBytes(entries_[0].meta.payload_bytes(), kParts.size());
    host_ = *HostTier::Create({.capacity_bytes = kEntries * room, .memory = ArenaMemory::kAtUse});
    pinned_ = *gpu_->Pin(host_->arena(), PinnedUse::kReadWrite);
    auto tier = GpuTier::Create(*gpu_, kEntries * room);
    ASSERT_TRUE(tier.ok()) << tier.status();
    tier_ = *std::move(tier);
    mover_ = *GpuMover::Create(*gpu_, *host_, *tier_, {.underway_bytes_max = 1 << 20});
    for (const TestEntry& entry : entries_) {
      HostRoom to = *host_->Reserve(entry.meta.payload_bytes(), kParts.size());
      std::copy_n(entry.payload.bytes().begin(), entry.meta.payload_bytes(), to.bytes().begin());
      ASSERT_TRUE(host_->Publish(entry.meta, std::move(to)).ok());
    }
  }
  void PromoteAll() {
    for (const TestEntry& entry : entries_) {
      ASSERT_TRUE(mover_->Promote(*host_->Find(entry.meta.key), Expected()).ok());
    }
    Finish();
  }
  static GpuMover::Done Expected() {
    return [](const EntryKey&, const absl::Status& status) { EXPECT_TRUE(status.ok()) << status; };
  }
  void Finish() {
    do {
      mover_->Step();
    } while (mover_->Wait());
  }

  std::vector<TestEntry> entries_;
  std::unique_ptr<Gpu> gpu_;
  std::unique_ptr<HostTier> host_;
  std::unique_ptr<Gpu::Pinned> pinned_;
  std::unique_ptr<GpuTier> tier_;
  std::unique_ptr<GpuMover> mover_;
};

TEST_F(GpuTierCudaTest, UpInPlaceAndDownAgain) {
  PromoteAll();
  for (const TestEntry& entry : entries_) {
    const GpuPin pin = tier_->Find(entry.meta.key);
    ASSERT_TRUE(pin);
    const absl::Status checked = tier_->Check(pin);
    EXPECT_TRUE(checked.ok()) << checked;
    ASSERT_TRUE(host_->Erase(entry.meta.key));
    ASSERT_TRUE(mover_->Demote(tier_->Find(entry.meta.key), Expected()).ok());
  }
  Finish();
  EXPECT_EQ(mover_->stats().demoted_entries, kEntries);
  for (const TestEntry& entry : entries_) {
    const auto pin = host_->Find(entry.meta.key);
    ASSERT_TRUE(pin.has_value());
    EXPECT_TRUE(
        std::equal(pin->payload().begin(), pin->payload().end(), entry.payload.bytes().begin()));
  }
}

TEST_F(GpuTierCudaTest, WhatComesFreeIsZeroed) {
  PromoteAll();
  for (const TestEntry& entry : entries_) ASSERT_TRUE(tier_->Erase(entry.meta.key));
  ASSERT_TRUE(tier_->Settle().ok());
  EXPECT_EQ(tier_->stats().used_bytes, 0u);
  // The pool as another process would see it.
  IoBuffer seen(tier_->pool_bytes());
  std::fill(seen.bytes().begin(), seen.bytes().end(), uint8_t{1});
  const auto seen_pinned = *gpu_->Pin(seen.bytes(), PinnedUse::kReadWrite);
  const auto room = *tier_->Reserve(1, 1);
  const auto stream = *gpu_->NewStream();
  ASSERT_TRUE(
      stream->Copy(room.data() - room.offset(), seen.bytes().data(), seen.bytes().size()).ok());
  ASSERT_TRUE(stream->Wait(*stream->Mark()).ok());
  EXPECT_TRUE(
      std::all_of(seen.bytes().begin(), seen.bytes().end(), [](uint8_t b) { return b == 0; }));
}

TEST_F(GpuTierCudaTest, APrefixIsGatheredFromEitherTier) {
  PromoteAll();
  const auto restore = *GpuRestore::Create(*gpu_, kEntries);
  const uint64_t bytes = entries_[0].meta.payload_bytes();
  const auto session = *gpu_->Allocate(kEntries * bytes, GpuSharing::kPrivate);
  IoBuffer seen(kEntries * bytes);
  const auto seen_pinned = *gpu_->Pin(seen.bytes(), PinnedUse::kReadWrite);
  const auto stream = *gpu_->NewStream();
  std::vector<GpuGatherStep> steps;
  uint32_t from = 0;
  for (const uint32_t part : kParts) {
    steps.push_back({{{.first = 0,
                       .count = kEntries,
                       .from = from,
                       .bytes = part,
                       .to = session->data() + from * kEntries,
                       .to_stride = part}}});
    from += part;
  }
  std::vector<Digest> digests;
  for (const TestEntry& entry : entries_) digests.push_back(entry.meta.key.digest);
  const GpuPins on_gpu = tier_->FindAll(digests, EntryKind::kRows);
  const HostPins on_host = host_->FindAll(digests, EntryKind::kRows);
  ASSERT_EQ(on_gpu.size(), kEntries);
  for (const GatherFrom where : {GatherFrom::kDevice, GatherFrom::kHost}) {
    std::vector<const uint8_t*> sources;
    for (size_t i = 0; i < kEntries; ++i) {
      sources.push_back(where == GatherFrom::kDevice ? on_gpu[i].payload
                                                     : on_host[i].payload.data());
    }
    ASSERT_TRUE(stream->Zero(session->data(), session->bytes()).ok());
    ASSERT_TRUE(stream->Wait(*stream->Mark()).ok());
    ASSERT_TRUE(restore->Begin(sources, steps, where).ok());
    ASSERT_TRUE(restore->Before(*stream, steps.size() - 2).ok());
    ASSERT_TRUE(restore->Before(*stream, steps.size() - 1).ok());
    ASSERT_TRUE(stream->Copy(session->data(), seen.bytes().data(), kEntries * bytes).ok());
    ASSERT_TRUE(stream->Wait(*stream->Mark()).ok());
    uint64_t at = 0;
    from = 0;
    for (const uint32_t part : kParts) {
      for (const TestEntry& entry : entries_) {
        EXPECT_TRUE(std::equal(seen.bytes().begin() + static_cast<ptrdiff_t>(at),
                               seen.bytes().begin() + static_cast<ptrdiff_t>(at + part),
                               entry.payload.bytes().begin() + static_cast<ptrdiff_t>(from)));
        at += part;
      }
      from += part;
    }
  }
}

}  // namespace
}  // namespace cairn::store
