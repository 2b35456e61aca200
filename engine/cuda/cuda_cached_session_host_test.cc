// Goal: every byte of an entry goes to its place in a slot and back, whatever room there is for the
// entries on their way; nothing goes beside; nothing unchecked counts. Method: slots full of random
// bytes in a device whose memory is the host's (host_device.cc), so that it runs on any machine.
// What the bytes are good for only a GPU tells: cuda_cached_session_test.cc.
#include <gtest/gtest.h>

#include "engine/cuda/cuda_cached_session.h"
#include "engine/model/presets.h"
#include "store/base/checksum.h"
#include "store/base/limits.h"
#include "store/base/random.h"
#include "store/device/fake_gpu.h"

namespace cairn::engine {
namespace {

using cache::EntryView;
using cache::LayoutScope;
using kernels::cuda::DeviceBuffer;

constexpr int64_t kBlocks = 7;
constexpr int64_t kTokens = kBlocks * static_cast<int64_t>(kBlockTokens);
constexpr int64_t kFrom = 1, kTo = 2;  // slots
using Bytes = std::vector<uint8_t>;

// Every kind of layer, and an MTP block, which is left out.
ModelConfig Config() {
  ModelConfig config = *PresetConfig("nano");
  config.head_dim = 512;
  config.index_dim = 128;
  SetLayers(config, 5, 1);
  config.compress_ratios = {0, 4, 128, 4, 128, 0};
  return config;
}

class CachedSlots : public testing::Test {
 protected:
  // Goes into `kFrom` as random bytes, and out as entries.
  CachedSlots() {
    Randomise(*from_);
    from_->set_position(kFrom, kTokens);
    CudaCachedSession session(layout_, *from_, kFrom, nullptr, nullptr);
    rows_ = RowsOf(session);
    checkpoint_ = CheckpointOf(session);
    for (const Bytes& rows : rows_) views_.push_back(View(rows, LayoutScope::kPrefix));
    checkpoint_view_ = View(checkpoint_, LayoutScope::kTrailing);
  }
  static std::unique_ptr<CudaSessions> Sessions() {
    return *CudaSessions::Create(Config(),
                                 {.slots = 3, .tokens_max = 1024, .span_tokens_max = 600});
  }
  static std::vector<std::span<uint8_t>> PoolsOf(const CudaSessions& sessions) {
    std::vector<std::span<uint8_t>> pools;
    const auto add = [&](const auto& buffer) {
      pools.push_back(
          {reinterpret_cast<uint8_t*>(buffer.get()), buffer.count() * sizeof(*buffer.get())});
    };
    for (int64_t i = 0; i < sessions.layers(); ++i) {
      const CudaLayerState& layer = sessions.layer(i);
      for (const CudaPool* pool : {&layer.window, &layer.rows, &layer.index}) {
        add(pool->data);
        add(pool->scales);
      }
      add(layer.compressor);
      add(layer.index_compressor);
    }
    return pools;
  }
  void Randomise(const CudaSessions& sessions) {
    for (const std::span<uint8_t> pool : PoolsOf(sessions)) random_.Fill(pool);
  }
  Bytes Copy(const absl::StatusOr<std::shared_ptr<const uint8_t>>& entry, int64_t bytes) const {
    EXPECT_TRUE(entry.ok()) << entry.status();
    return {entry->get(), entry->get() + bytes};
  }
  std::vector<Bytes> RowsOf(CudaCachedSession& session) const {
    std::vector<Bytes> rows;
    for (int64_t block = 0; block < kBlocks; ++block) {
      rows.push_back(Copy(session.ShareRows(block), layout_.rows_entry_bytes()));
    }
    return rows;
  }
  Bytes CheckpointOf(CudaCachedSession& session) const {
    return Copy(session.ShareCheckpoint(), layout_.checkpoint_bytes());
  }
  EntryView View(const Bytes& bytes, LayoutScope scope) const {
    EntryView view;
    view.payload = bytes;
    std::span<const uint8_t> rest = bytes;
    for (const uint32_t part : layout_.Descriptor({}).part_bytes(scope)) {
      view.parts.push_back({part, Checksum(rest.first(part))});
      rest = rest.subspan(part);
    }
    EXPECT_TRUE(rest.empty());
    return view;
  }
  StoredPrefix Stored() const { return {.rows = views_, .checkpoint = &checkpoint_view_}; }

  const KvLayout layout_ = CudaKvLayout(Config());
  SeededRandom random_{5};
  const std::unique_ptr<CudaSessions> from_ = Sessions();
  std::vector<Bytes> rows_;
  Bytes checkpoint_;
  std::vector<EntryView> views_;
  EntryView checkpoint_view_;
};

TEST_F(CachedSlots, EveryByteIsRestoredThroughAnyRoom) {
  for (const int64_t staging_bytes : {int64_t{1}, layout_.checkpoint_bytes() + 1000,
                                      layout_.checkpoint_bytes() + 2 * layout_.rows_entry_bytes(),
                                      CudaCachedSession::kStagingBytes}) {
    SCOPED_TRACE(staging_bytes);
    const std::unique_ptr<CudaSessions> to = Sessions();
    Randomise(*to);
    CudaCachedSession session(layout_, *to, kTo, nullptr, nullptr, staging_bytes);
    const absl::Status restored = session.Restore(Stored());
    ASSERT_TRUE(restored.ok()) << restored;
    EXPECT_EQ(session.position(), kTokens);
    EXPECT_EQ(session.replay(), nullptr);
    EXPECT_EQ(RowsOf(session), rows_);
    EXPECT_EQ(CheckpointOf(session), checkpoint_);
  }
}

TEST_F(CachedSlots, NothingIsWrittenBesideTheSlot) {
  const std::unique_ptr<CudaSessions> to = Sessions();
  for (const std::span<uint8_t> pool : PoolsOf(*to)) std::ranges::fill(pool, uint8_t{0x5a});
  CudaCachedSession session(layout_, *to, kTo, nullptr, nullptr);
  ASSERT_TRUE(session.Restore(Stored()).ok());
  for (const std::span<uint8_t> pool : PoolsOf(*to)) {
    // Of three slots one behind the other the first two; some pools have a spare row behind them.
    const size_t slot_bytes = pool.size() / 3 / 64 * 64;
    const std::span<uint8_t> others = pool.first(slot_bytes * kTo);
    EXPECT_TRUE(std::ranges::all_of(others, [](uint8_t byte) { return byte == 0x5a; }));
  }
}

TEST_F(CachedSlots, OneDamagedByteLeavesAFreshSession) {
  for (Bytes* damaged : {&rows_[0], &rows_[kBlocks - 1], &checkpoint_}) {
    CudaCachedSession session(layout_, *from_, kTo, nullptr, nullptr, /*staging_bytes=*/1);
    uint8_t& byte = (*damaged)[damaged->size() / 2];
    byte ^= 0x10;
    EXPECT_TRUE(absl::IsDataLoss(session.Restore(Stored())));
    EXPECT_EQ(session.position(), 0);
    byte ^= 0x10;
    ASSERT_TRUE(session.Restore(Stored()).ok()) << "another try";
    EXPECT_EQ(RowsOf(session), rows_);
    session.Clear();
    EXPECT_EQ(session.position(), 0);
  }
}

// Entries as a daemon has them, in its arena and in its pool, where the device can read them.
class ReadableSlots : public CachedSlots {
 protected:
  ReadableSlots() {
    for (const Bytes& rows : rows_) stored_.push_back(WithTable(rows, LayoutScope::kPrefix));
    stored_.push_back(WithTable(checkpoint_, LayoutScope::kTrailing));
    uint64_t bytes = 0;
    for (const Bytes& entry : stored_) bytes += entry.size();
    pool_ = *gpu_.Allocate(bytes, store::GpuSharing::kPrivate);
    bytes = 0;
    for (const Bytes& entry : stored_) {
      in_pool_.push_back(store::FakeGpu::BytesOf(*pool_).subspan(bytes, entry.size()));
      std::ranges::copy(entry, in_pool_.back().begin());
      bytes += entry.size();
      pins_.push_back(*gpu_.Pin(entry, store::PinnedUse::kReadOnly));
    }
  }
  const std::vector<uint32_t>& PartBytes(size_t i) const {
    return i < rows_.size() ? rows_parts_ : checkpoint_parts_;
  }
  Bytes WithTable(const Bytes& payload, LayoutScope scope) const {
    Bytes entry = payload;
    entry.resize(PartTableOffset(payload.size()));
    for (const EntryPart& part : View(payload, scope).parts) {
      const auto* sum = reinterpret_cast<const uint8_t*>(&part.xxh3);
      entry.insert(entry.end(), sum, sum + sizeof(part.xxh3));
    }
    return entry;
  }
  enum class Where : uint8_t { kPool, kArena, kUnpinned };
  EntryView Mapped(size_t i, Where where) const {
    const std::span<const uint8_t> entry = stored_[i];
    const size_t table = PartBytes(i).size() * sizeof(uint64_t);
    EntryView view;
    view.payload = entry.first(i < rows_.size() ? rows_[i].size() : checkpoint_.size());
    view.part_bytes = PartBytes(i);
    view.part_table = entry.last(table).data();
    view.table_xxh3 = Checksum(entry.last(table));
    view.gpu = where == Where::kPool ? in_pool_[i].data() : nullptr;
    view.pinned = where == Where::kArena;
    return view;
  }
  // Entry i lies where[i % where.size()].
  void Place(const std::vector<Where>& where) {
    views_.clear();
    for (size_t i = 0; i < rows_.size(); ++i) views_.push_back(Mapped(i, where[i % where.size()]));
    checkpoint_view_ = Mapped(rows_.size(), where[rows_.size() % where.size()]);
  }

  const std::vector<uint32_t> rows_parts_ = layout_.Descriptor({}).part_bytes(LayoutScope::kPrefix);
  const std::vector<uint32_t> checkpoint_parts_ =
      layout_.Descriptor({}).part_bytes(LayoutScope::kTrailing);
  store::FakeGpu gpu_;
  std::vector<Bytes> stored_;
  std::unique_ptr<store::GpuRegion> pool_;
  std::vector<std::span<uint8_t>> in_pool_;
  std::vector<std::unique_ptr<store::Gpu::Pinned>> pins_;
};

TEST_F(ReadableSlots, TheDeviceReadsWhatItCanWhereItLies) {
  const auto pool_bytes = [&](const std::vector<Where>& where) {
    uint64_t bytes = 0;
    for (size_t i = 0; i <= rows_.size(); ++i) {
      if (where[i % where.size()] == Where::kPool) bytes += Mapped(i, Where::kPool).payload.size();
    }
    return bytes;
  };
  for (const std::vector<Where>& where :
       std::vector<std::vector<Where>>{{Where::kPool},
                                       {Where::kArena},
                                       {Where::kUnpinned},
                                       {Where::kPool, Where::kUnpinned, Where::kArena}}) {
    Place(where);
    const std::unique_ptr<CudaSessions> to = Sessions();
    CudaCachedSession session(layout_, *to, kTo, nullptr, &gpu_, /*staging_bytes=*/1);
    if (where.size() > 1) {
      ASSERT_TRUE(session.Prepare().ok()) << "or not, it is the same";
    }
    const absl::Status restored = session.Restore(Stored());
    ASSERT_TRUE(restored.ok()) << restored;
    EXPECT_EQ(session.position(), kTokens);
    EXPECT_EQ(session.restored().gpu_bytes, pool_bytes(where));
    EXPECT_EQ(session.restored().checksum_failures, 0u);
    EXPECT_EQ(RowsOf(session), rows_);
    EXPECT_EQ(CheckpointOf(session), checkpoint_);
  }
}

TEST_F(ReadableSlots, WhatIsDamagedInThePoolIsTakenFromHostMemory) {
  Place({Where::kPool});
  for (const size_t damaged : {size_t{0}, rows_.size()}) {
    const std::unique_ptr<CudaSessions> to = Sessions();
    CudaCachedSession session(layout_, *to, kTo, nullptr, &gpu_);
    in_pool_[damaged][10] ^= 1;
    ASSERT_TRUE(session.Restore(Stored()).ok());
    EXPECT_EQ(session.restored().checksum_failures, 1u);
    EXPECT_EQ(session.restored().gpu_bytes, 0u);
    EXPECT_EQ(RowsOf(session), rows_);
    EXPECT_EQ(CheckpointOf(session), checkpoint_);
    in_pool_[damaged][10] ^= 1;
  }
}

TEST_F(ReadableSlots, WhatIsDamagedInHostMemoryTooLeavesAFreshSession) {
  Place({Where::kArena});
  CudaCachedSession session(layout_, *from_, kTo, nullptr, &gpu_);
  stored_[3][10] ^= 1;
  EXPECT_TRUE(absl::IsDataLoss(session.Restore(Stored())));
  EXPECT_EQ(session.position(), 0);
  stored_[3][10] ^= 1;
  EXPECT_TRUE(session.Restore(Stored()).ok()) << "another try";
}

TEST_F(CachedSlots, BlocksAreSharedInAnyOrderAndAfterEveryStep) {
  const std::unique_ptr<CudaSessions> to = Sessions();
  Randomise(*to);
  // Room for two blocks at once.
  CudaCachedSession session(layout_, *to, kTo, nullptr, nullptr, 2 * layout_.rows_entry_bytes());
  ASSERT_TRUE(session.Restore(Stored()).ok());
  for (const int64_t block : {6, 0, 1, 2, 5, 3, 4}) {
    EXPECT_EQ(Copy(session.ShareRows(block), layout_.rows_entry_bytes()),
              rows_[static_cast<size_t>(block)]);
  }
  EXPECT_EQ(CheckpointOf(session), checkpoint_);
  EXPECT_EQ(Copy(session.ShareRows(4), layout_.rows_entry_bytes()), rows_[4]);
  // Another sequence in the same slot.
  session.Clear();
  Randomise(*to);
  to->set_position(kTo, kTokens);
  EXPECT_NE(Copy(session.ShareRows(4), layout_.rows_entry_bytes()), rows_[4]);
}

TEST_F(CachedSlots, WhatCannotBeRestoredIsRefused) {
  CudaCachedSession session(layout_, *from_, kTo, nullptr, nullptr);
  StoredPrefix prefix{.rows = views_};
  prefix.replay = ReplayPlan::To(Config(), kTokens);
  EXPECT_TRUE(absl::IsFailedPrecondition(session.Restore(prefix)));
  const std::vector<EntryView> many(9, views_[0]);  // the slots have room for eight
  EXPECT_TRUE(absl::IsOutOfRange(session.Restore({.rows = many, .checkpoint = &checkpoint_view_})));
  EXPECT_EQ(session.position(), 0);
}

}  // namespace
}  // namespace cairn::engine
