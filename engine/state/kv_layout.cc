#include "engine/state/kv_layout.h"

#include "absl/strings/str_cat.h"
#include "store/base/limits.h"

namespace cairn::engine {
namespace {

using cache::LayoutScope;
using kernels::RowCodec;
using kernels::RowEncoding;

RowCodec MakeRowCodec(const ModelConfig& config, Numerics numerics, RopeRows rope_rows) {
  RowEncoding encoding = RowEncoding::kF32;
  if (numerics != Numerics::kPlain) {
    encoding = rope_rows == RopeRows::kBf16 ? RowEncoding::kFp8Bf16 : RowEncoding::kFp8F32;
  }
  return RowCodec(encoding, config.head_dim, config.rope_dim);
}

RowCodec MakeIndexCodec(const ModelConfig& config, Numerics numerics) {
  const RowEncoding encoding = numerics == Numerics::kPlain ? RowEncoding::kF32 : RowEncoding::kFp4;
  return RowCodec(encoding, config.index_dim, config.rope_dim);
}

}  // namespace

KvLayout::KvLayout(const ModelConfig& config, Numerics numerics, RopeRows rope_rows)
    : numerics_(numerics),
      row_codec_(MakeRowCodec(config, numerics, rope_rows)),
      index_codec_(MakeIndexCodec(config, numerics)),
      model_(config.Canonical()) {
  for (int64_t layer = 0; layer < config.layers + config.mtp_layers; ++layer)
    AddLayer(config, layer);
  if (config.mtp_layers > 0) {
    mtp_hidden_ =
        Add(LayoutScope::kTrailing, "mtp.hidden", 1, 0, config.hc * config.dim * 4, 0, "f32");
  }
}

void KvLayout::AddLayer(const ModelConfig& config, int64_t layer) {
  const std::string name =
      layer < config.layers ? absl::StrCat("layer.", layer) : std::string("mtp");
  LayerSlots slots;
  slots.ratio = config.ratio(layer);
  const RowCodec& row = row_codec_;
  const RowCodec& index = index_codec_;
  if (slots.ratio > 0) {
    slots.rows = Add(
        LayoutScope::kPrefix, absl::StrCat(name, slots.ratio == 4 ? ".csa_rows" : ".hca_rows"),
        kBlockTokens / slots.ratio, slots.ratio, row.data_bytes(), row.scale_bytes(), row.Name());
  }
  if (slots.ratio == 4) {
    slots.index_rows = Add(LayoutScope::kPrefix, name + ".index_rows", kBlockTokens / 4, 4,
                           index.data_bytes(), index.scale_bytes(), index.Name() + "-hadamard");
  }
  slots.window = Add(LayoutScope::kTrailing, name + ".window", config.window, 1, row.data_bytes(),
                     row.scale_bytes(), row.Name());
  if (slots.ratio == 4) {
    slots.overlap =
        Add(LayoutScope::kTrailing, name + ".overlap", 8, 0, config.head_dim * 4, 0, "f32");
    slots.index_overlap =
        Add(LayoutScope::kTrailing, name + ".index_overlap", 8, 0, config.index_dim * 4, 0, "f32");
  }
  layers_.push_back(slots);
}

ComponentSlot KvLayout::Add(LayoutScope scope, const std::string& name, int64_t rows,
                            int64_t tokens_per_row, int64_t data_bytes, int64_t scale_bytes,
                            const std::string& encoding) {
  int64_t& end = scope == LayoutScope::kPrefix ? rows_entry_bytes_ : checkpoint_bytes_;
  const ComponentSlot slot{end, rows, data_bytes, scale_bytes};
  end += slot.bytes();
  components_.push_back({.name = name,
                         .scope = scope,
                         .tokens_per_row = static_cast<uint32_t>(tokens_per_row),
                         .rows = static_cast<uint32_t>(rows),
                         .row_bytes = static_cast<uint32_t>(data_bytes + scale_bytes),
                         .scale_bytes = static_cast<uint32_t>(scale_bytes),
                         .encoding = encoding});
  return slot;
}

std::vector<LayerGroup> KvLayout::Groups(int64_t blocks, size_t count) const {
  const auto total = static_cast<double>(blocks * rows_entry_bytes_ + checkpoint_bytes_);
  std::vector<LayerGroup> groups;
  LayerGroup group;
  int64_t bytes = 0;
  for (const LayerSlots& slots : layers_) {
    for (const ComponentSlot* slot : {&slots.rows, &slots.index_rows}) {
      group.parts.rows_parts += slot->rows > 0 ? 1 : 0;
      bytes += blocks * slot->bytes();
    }
    for (const ComponentSlot* slot : {&slots.window, &slots.overlap, &slots.index_overlap}) {
      group.parts.checkpoint_parts += slot->rows > 0 ? 1 : 0;
      bytes += slot->bytes();
    }
    ++group.layers;
    const auto share = static_cast<double>(groups.size() + 1) / static_cast<double>(count);
    const bool last = group.layers == std::ssize(layers_) || groups.size() + 1 == count;
    if (!last && static_cast<double>(bytes) >= share * total) groups.push_back(group);
  }
  if (mtp_hidden_.rows > 0) ++group.parts.checkpoint_parts;
  groups.push_back(group);
  return groups;
}

cache::LayoutDescriptor KvLayout::Descriptor(const Digest& weights) const {
  cache::LayoutDescriptor descriptor;
  descriptor.model = model_;
  descriptor.numerics = absl::StrCat(NumericsName(numerics_), "-", kNumericsVersion);
  descriptor.weights = weights;
  descriptor.components = components_;
  return descriptor;
}

}  // namespace cairn::engine
