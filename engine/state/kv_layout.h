// kv_layout.h: where every byte of a model's KV lies in a rows entry (one block of 128 tokens) and
// in a checkpoint. Made from the config and the numerics; its descriptor() is what the cache keys
// by.
//
// Rows entry, layer by layer: CSA rows (ratio 4: 32), then their indexer keys (32); HCA rows (ratio
// 128: 1). Checkpoint, layer by layer: window rows (128, slot = position mod 128), CSA overlap and
// indexer overlap (ratio 4); with an MTP block its window and the residual streams of the last
// token (the MTP row of the last position needs the token that follows, so it is made at resume).
// Sources: spec sections 2.10 and 3.2.
//
// Threads: immutable. Units: bytes.
#ifndef CAIRN_ENGINE_STATE_KV_LAYOUT_H_
#define CAIRN_ENGINE_STATE_KV_LAYOUT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "cache/client/cache_api.h"
#include "cache/client/layout.h"
#include "engine/model/config.h"
#include "engine/state/numerics.h"
#include "kernels/cpu/kv_rows.h"

namespace cairn::engine {

// One component of an entry: `rows` rows' data from `offset`, then their scales.
struct ComponentSlot {
  int64_t offset = 0;
  int64_t rows = 0;  // 0: the layer has no such component
  int64_t data_bytes = 0;
  int64_t scale_bytes = 0;

  int64_t data_at(int64_t row) const { return offset + row * data_bytes; }
  int64_t scale_at(int64_t row) const { return offset + rows * data_bytes + row * scale_bytes; }
  int64_t bytes() const { return rows * (data_bytes + scale_bytes); }
};

struct LayerSlots {
  int64_t ratio = 0;
  // In the rows entry.
  ComponentSlot rows;
  ComponentSlot index_rows;
  // In the checkpoint. Overlaps: 4 rows of D kv values, then 4 rows of D scores, F32.
  ComponentSlot window;
  ComponentSlot overlap;
  ComponentSlot index_overlap;
};

// Layers whose bytes arrive together, so that a step can go through them while those of the layers
// behind are on their way.
struct LayerGroup {
  int64_t layers = 0;      // of this and of the groups before; the MTP block's is one
  cache::PartGroup parts;  // all parts of these
};

class KvLayout {
 public:
  KvLayout(const ModelConfig& config, Numerics numerics, RopeRows rope_rows = RopeRows::kBf16);

  const std::vector<LayerSlots>& layers() const { return layers_; }  // the MTP block's is last
  const ComponentSlot& mtp_hidden() const { return mtp_hidden_; }
  const kernels::RowCodec& row_codec() const { return row_codec_; }
  const kernels::RowCodec& index_codec() const { return index_codec_; }
  int64_t rows_entry_bytes() const { return rows_entry_bytes_; }
  int64_t checkpoint_bytes() const { return checkpoint_bytes_; }

  cache::LayoutDescriptor Descriptor(const Digest& weights) const;
  // At most `count` groups of about equal bytes of a prefix of so many blocks and its checkpoint.
  // The last one has what belongs to no layer too.
  std::vector<LayerGroup> Groups(int64_t blocks, size_t count) const;

 private:
  void AddLayer(const ModelConfig& config, int64_t layer);
  ComponentSlot Add(cache::LayoutScope scope, const std::string& name, int64_t rows,
                    int64_t tokens_per_row, int64_t data_bytes, int64_t scale_bytes,
                    const std::string& encoding);

  Numerics numerics_;
  kernels::RowCodec row_codec_;
  kernels::RowCodec index_codec_;
  std::string model_;
  std::vector<LayerSlots> layers_;
  ComponentSlot mtp_hidden_;
  int64_t rows_entry_bytes_ = 0;
  int64_t checkpoint_bytes_ = 0;
  std::vector<cache::LayoutComponent> components_;
};

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_STATE_KV_LAYOUT_H_
