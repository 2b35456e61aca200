#include "engine/state/session_state.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "engine/state/reused_memory.h"
#include "store/base/limits.h"

namespace cairn::engine {
namespace {

void CopyOut(const void* from, const ComponentSlot& slot, std::span<uint8_t> out) {
  std::memcpy(out.data() + slot.offset, from, static_cast<size_t>(slot.bytes()));
}

void CopyIn(std::span<const uint8_t> in, const ComponentSlot& slot, void* to) {
  std::memcpy(to, in.data() + slot.offset, static_cast<size_t>(slot.bytes()));
}

// `open`: tokens of the open group, the one to be taken back among them.
void TakeBackOne(CompressorState& state, std::optional<CompressorState>& undo, int64_t open) {
  if (open == 0) {
    state = *std::exchange(undo, std::nullopt);
    return;
  }
  for (std::vector<float>* values : {&state.partial.kv, &state.partial.score}) {
    values->resize(values->size() / static_cast<size_t>(open) * static_cast<size_t>(open - 1));
  }
}

void PrefetchBytes(const uint8_t* data, int64_t bytes) {
  constexpr int64_t kLine = 64;
  for (int64_t at = 0; at < bytes; at += kLine) __builtin_prefetch(data + at);
}

}  // namespace

WindowRing::WindowRing(const kernels::RowCodec& codec, int64_t window)
    : codec_(&codec),
      slot_{0, window, codec.data_bytes(), codec.scale_bytes()},
      bytes_(static_cast<size_t>(slot_.bytes()), 0) {}

void WindowRing::Put(int64_t position, const float* row) {
  const int64_t slot = position % slot_.rows;
  codec_->Encode(row, bytes_.data() + slot_.data_at(slot), bytes_.data() + slot_.scale_at(slot));
}

void WindowRing::Get(int64_t position, float* row) const {
  const int64_t slot = position % slot_.rows;
  codec_->Decode(bytes_.data() + slot_.data_at(slot), bytes_.data() + slot_.scale_at(slot), row);
}

void WindowRing::Prefetch(int64_t position) const {
  PrefetchBytes(bytes_.data() + slot_.data_at(position % slot_.rows), slot_.data_bytes);
}

uint8_t* RowBlocks::Write(int64_t block) {
  if (block == count()) {
    auto bytes = std::make_shared<std::vector<uint8_t>>(static_cast<size_t>(block_bytes_), 0);
    uint8_t* data = bytes->data();
    blocks_.push_back({data, data, std::move(bytes)});
  }
  return blocks_[static_cast<size_t>(block)].own;
}

void RowBlocks::Adopt(const uint8_t* bytes, std::shared_ptr<const void> owner) {
  blocks_.push_back({bytes, nullptr, std::move(owner)});
}

void RowBlocks::Replace(int64_t block, std::shared_ptr<const std::vector<uint8_t>> bytes) {
  const uint8_t* data = bytes->data();
  blocks_[static_cast<size_t>(block)] = {data, nullptr, std::move(bytes)};
}

std::shared_ptr<const uint8_t> RowBlocks::Share(int64_t block) const {
  const Block& b = blocks_[static_cast<size_t>(block)];
  return {b.owner, b.bytes};
}

SessionState::SessionState(const ModelConfig& config, const KvLayout& layout)
    : layout_(&layout),
      rows_(layout.rows_entry_bytes()),
      hidden_values_(config.mtp_layers > 0 ? config.hc * config.dim : 0) {
  for (const LayerSlots& slots : layout.layers()) {
    LayerState state{WindowRing(layout.row_codec(), config.window), {}, {}};
    state.main.overlap.values.assign(static_cast<size_t>(slots.overlap.bytes()) / sizeof(float),
                                     0.0f);
    state.indexer.overlap.values.assign(
        static_cast<size_t>(slots.index_overlap.bytes()) / sizeof(float), 0.0f);
    layers_.push_back(std::move(state));
  }
  undo_.layers.resize(layers_.size());
}

void SessionState::TakeBack() {
  for (size_t i = 0; i < layers_.size(); ++i) {
    const int64_t ratio = layout_->layers()[i].ratio;
    if (ratio == 0) continue;
    TakeBackOne(layers_[i].main, undo_.layers[i].main, position_ % ratio);
    if (ratio == 4) TakeBackOne(layers_[i].indexer, undo_.layers[i].indexer, position_ % ratio);
  }
  if (hidden_values_ > 0) last_hidden_.swap(undo_.last_hidden);
  --position_;
}

void SessionState::PrefetchRow(const ComponentSlot& slot, int64_t row) const {
  PrefetchBytes(rows_.Read(row / slot.rows) + slot.data_at(row % slot.rows), slot.data_bytes);
}

void SessionState::ReadRow(const ComponentSlot& slot, const kernels::RowCodec& codec, int64_t row,
                           float* out) const {
  const uint8_t* block = rows_.Read(row / slot.rows);
  codec.Decode(block + slot.data_at(row % slot.rows), block + slot.scale_at(row % slot.rows), out);
}

void SessionState::ReadPanel(const ComponentSlot& slot, const kernels::RowCodec& codec, int64_t row,
                             int64_t count, float* panel) const {
  const uint8_t* data[16];
  const uint8_t* scales[16];
  for (int64_t i = 0; i < count; ++i) {
    const uint8_t* block = rows_.Read((row + i) / slot.rows);
    data[i] = block + slot.data_at((row + i) % slot.rows);
    scales[i] = block + slot.scale_at((row + i) % slot.rows);
  }
  codec.DecodePanel(data, scales, count, panel);
}

void SessionState::WriteRow(const ComponentSlot& slot, const kernels::RowCodec& codec, int64_t row,
                            const float* x) {
  uint8_t* block = rows_.Write(row / slot.rows);
  codec.Encode(x, block + slot.data_at(row % slot.rows), block + slot.scale_at(row % slot.rows));
}

void SessionState::SaveCheckpoint(std::span<uint8_t> out) const {
  for (size_t i = 0; i < layers_.size(); ++i) {
    const LayerSlots& slots = layout_->layers()[i];
    CopyOut(layers_[i].window.bytes().data(), slots.window, out);
    if (slots.ratio == 4) {
      CopyOut(layers_[i].main.overlap.values.data(), slots.overlap, out);
      CopyOut(layers_[i].indexer.overlap.values.data(), slots.index_overlap, out);
    }
  }
  if (hidden_values_ > 0) CopyOut(last_hidden_.data(), layout_->mtp_hidden(), out);
}

void SessionState::LoadCheckpoint(int64_t blocks, std::span<const uint8_t> in) {
  for (size_t i = 0; i < layers_.size(); ++i) LoadLayer(i, in);
  LoadHidden(in);
  position_ = blocks * kBlockTokens;
}

void SessionState::LoadLayer(size_t i, std::span<const uint8_t> in) {
  const LayerSlots& slots = layout_->layers()[i];
  CopyIn(in, slots.window, layers_[i].window.bytes().data());
  if (slots.ratio == 4) {
    CopyIn(in, slots.overlap, layers_[i].main.overlap.values.data());
    CopyIn(in, slots.index_overlap, layers_[i].indexer.overlap.values.data());
  }
  layers_[i].main.partial = {};
  layers_[i].indexer.partial = {};
}

void SessionState::LoadHidden(std::span<const uint8_t> in) {
  if (hidden_values_ == 0) return;
  last_hidden_.resize(static_cast<size_t>(hidden_values_));
  CopyIn(in, layout_->mtp_hidden(), last_hidden_.data());
}

absl::Status SessionState::AwaitLayer(int64_t layer) {
  if (!arriving()) return absl::OkStatus();
  while (arrival_.loaded <= layer) {
    const auto group = static_cast<size_t>(
        std::ranges::find_if(arrival_.groups,
                             [&](const LayerGroup& g) { return g.layers > arrival_.loaded; }) -
        arrival_.groups.begin());
    if (const absl::Status there = arrival_.prefix->Await(group + 1); !there.ok()) {
      arrival_.failed = true;
      return there;
    }
    for (; arrival_.loaded < arrival_.groups[group].layers; ++arrival_.loaded) {
      LoadLayer(static_cast<size_t>(arrival_.loaded), arrival_.checkpoint);
    }
  }
  if (arrival_.loaded < std::ssize(layers_)) return absl::OkStatus();
  LoadHidden(arrival_.checkpoint);
  arrival_ = {};
  return absl::OkStatus();
}

void SessionState::RestoreArriving(const StoredPrefix& prefix) {
  for (const cache::EntryView& entry : prefix.rows) {
    rows_.Adopt(entry.payload.data(), prefix.owner);
  }
  arrival_ = {.owner = prefix.owner,
              .prefix = prefix.arriving,
              .checkpoint = prefix.checkpoint->payload,
              .groups = prefix.groups};
  position_ = std::ssize(prefix.rows) * kBlockTokens;
}

absl::Status SessionState::Restore(const StoredPrefix& prefix) {
  if (prefix.arriving != nullptr) {
    RestoreArriving(prefix);
    return absl::OkStatus();
  }
  if (!prefix.verified) {
    for (const cache::EntryView& entry : prefix.rows) CAIRN_RETURN_IF_ERROR(entry.Verify());
  }
  std::vector<uint8_t> checkpoint;
  if (prefix.checkpoint != nullptr) {
    checkpoint.resize(prefix.checkpoint->payload.size());
    CAIRN_RETURN_IF_ERROR(prefix.checkpoint->CopyOut(checkpoint));
  }
  for (const cache::EntryView& entry : prefix.rows) {
    rows_.Adopt(entry.payload.data(), prefix.owner);
  }
  if (prefix.replay.has_value()) {
    StartReplay(*prefix.replay);
  } else {
    LoadCheckpoint(std::ssize(prefix.rows), checkpoint);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const uint8_t>> SessionState::ShareCheckpoint() {
  CAIRN_RETURN_IF_ERROR(AwaitAll());
  const auto bytes = static_cast<size_t>(layout_->checkpoint_bytes());
  std::shared_ptr<uint8_t> state = TakeReused(bytes);
  SaveCheckpoint({state.get(), bytes});
  return state;
}

}  // namespace cairn::engine
