// presets.h: shapes of models worth making with random weights.
//
//   nano   the golden sets' shape: everything there is, as small as it gets; head_dim 128
//   mini   the demo's: V4-Flash where it matters for KV (head_dim 512, window 128, its pattern of
//   layers), small elsewhere small  the same with more of everything, for benchmarks
//
// Threads: pure. Errors: INVALID_ARGUMENT naming the presets there are.
#ifndef CAIRN_ENGINE_MODEL_PRESETS_H_
#define CAIRN_ENGINE_MODEL_PRESETS_H_

#include <string>

#include "engine/model/config.h"

namespace cairn::engine {

absl::StatusOr<ModelConfig> PresetConfig(const std::string& name);

// Sets the number of layers and carries the pattern of compress_ratios on: window-only layers
// first, as many as there were, then 4 and 128 in turn; the MTP block's 0 last. Hash layers are
// clipped to the layers there are.
void SetLayers(ModelConfig& config, int64_t layers, int64_t mtp_layers);

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_MODEL_PRESETS_H_
