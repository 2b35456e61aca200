#include "engine/cuda/cuda_transfer.h"

#include "kernels/cuda/compressor.h"
#include "store/base/limits.h"

namespace cairn::engine {
namespace {

using kernels::cuda::CompressorShape;
using kernels::cuda::SegmentCopy;

class Copies {
 public:
  Copies(TransferDirection direction, uint8_t* entry, std::vector<SegmentCopy>& out)
      : direction_(direction), entry_(entry), out_(out) {}

  void Add(void* state, int64_t offset, int64_t bytes) {
    uint8_t* const in_entry = entry_ + offset;
    if (direction_ == TransferDirection::kToEntry) {
      out_.push_back({state, in_entry, bytes});
    } else {
      out_.push_back({in_entry, state, bytes});
    }
  }
  // The slot's rows [row, row + slot.rows) of a pool.
  void AddPool(const CudaPool& pool, int64_t row, const ComponentSlot& slot) {
    Add(pool.data.get() + row * slot.data_bytes, slot.data_at(0), slot.rows * slot.data_bytes);
    Add(pool.scales.get() + row * slot.scale_bytes, slot.scale_at(0), slot.rows * slot.scale_bytes);
  }
  // The first halves of the last group's tokens: kv of each, then score of each. `state`: of the
  // session's slot, kv and score of token t in place t mod 8.
  void AddOverlap(float* state, const CompressorShape& shape, const ComponentSlot& slot) {
    const int64_t bytes = shape.dim * static_cast<int64_t>(sizeof(float));
    for (int64_t part = 0; part < 2; ++part) {
      for (int64_t i = 0; i < shape.ratio; ++i) {
        // A block ends where t mod 8 is 0.
        const int64_t place = part * shape.slots() + shape.ratio + i;
        Add(state + place * shape.width(), slot.offset + (part * shape.ratio + i) * bytes, bytes);
      }
    }
  }

 private:
  const TransferDirection direction_;
  uint8_t* const entry_;
  std::vector<SegmentCopy>& out_;
};

static_assert(kBlockTokens % 8 == 0);

}  // namespace

KvLayout CudaKvLayout(ModelConfig config) {
  config.mtp_layers = 0;
  config.compress_ratios.resize(static_cast<size_t>(config.layers));
  return KvLayout(config, Numerics::kFullSm90a);
}

void AddRowsCopies(const KvLayout& layout, const CudaSessions& sessions, int64_t layer,
                   int64_t slot, int64_t block, TransferDirection direction, uint8_t* entry,
                   std::vector<SegmentCopy>& out) {
  const LayerSlots& slots = layout.layers()[static_cast<size_t>(layer)];
  const CudaLayerState& state = sessions.layer(layer);
  if (slots.ratio == 0) return;
  Copies copies(direction, entry, out);
  const int64_t rows_of_slot = slots.ratio == 4 ? sessions.csa_rows() : sessions.hca_rows();
  const int64_t row = slot * rows_of_slot + block * slots.rows.rows;
  copies.AddPool(state.rows, row, slots.rows);
  if (slots.ratio == 4) copies.AddPool(state.index, row, slots.index_rows);
}

void AddCheckpointCopies(const KvLayout& layout, const CudaSessions& sessions, int64_t layer,
                         int64_t slot, int64_t blocks, TransferDirection direction, uint8_t* entry,
                         std::vector<SegmentCopy>& out) {
  const LayerSlots& slots = layout.layers()[static_cast<size_t>(layer)];
  const CudaLayerState& state = sessions.layer(layer);
  Copies copies(direction, entry, out);
  // The ring has a multiple of 128 rows, so the window of a block's end lies in one piece.
  const int64_t first = (blocks - 1) * static_cast<int64_t>(kBlockTokens) % sessions.ring();
  copies.AddPool(state.window, slot * sessions.ring() + first, slots.window);
  if (slots.ratio != 4) return;
  const CompressorShape main{4, slots.overlap.bytes() / 8 / static_cast<int64_t>(sizeof(float))};
  const CompressorShape index{
      4, slots.index_overlap.bytes() / 8 / static_cast<int64_t>(sizeof(float))};
  copies.AddOverlap(state.compressor.get() + slot * main.state_floats(), main, slots.overlap);
  copies.AddOverlap(state.index_compressor.get() + slot * index.state_floats(), index,
                    slots.index_overlap);
}

}  // namespace cairn::engine
