#include "engine/serve/sequence.h"

#include "store/base/limits.h"

namespace cairn::engine {

int64_t SequenceBytes(const ModelConfig& config, const KvLayout& layout, int64_t tokens) {
  const int64_t blocks = (tokens + kBlockTokens - 1) / kBlockTokens;
  int64_t bytes = blocks * layout.rows_entry_bytes() + layout.checkpoint_bytes();
  // Open groups: kv and score of every token, F32; of ratio 4 both halves, and the indexer's.
  // Twice, with the overlap and the streams: what a guess can be undone with.
  bytes += config.hc * config.dim * static_cast<int64_t>(sizeof(float));
  for (const LayerSlots& slots : layout.layers()) {
    const int64_t width =
        slots.ratio == 4 ? 2 * (config.head_dim + config.index_dim) : config.head_dim;
    bytes += 2 * slots.ratio * width * 2 * static_cast<int64_t>(sizeof(float));
    bytes += slots.overlap.bytes() + slots.index_overlap.bytes();
  }
  return bytes;
}

}  // namespace cairn::engine
