#include "engine/model/presets.h"

#include <algorithm>

namespace cairn::engine {
namespace {

ModelConfig Nano() {
  ModelConfig c;
  c.vocab = 256;
  c.dim = 64;
  c.heads = 2;
  c.head_dim = 128;
  c.rope_dim = 64;
  c.q_lora = 32;
  c.o_lora = 16;
  c.o_groups = 2;
  c.window = 128;
  c.index_heads = 8;
  c.index_dim = 64;
  c.index_topk = 8;
  c.experts = 4;
  c.shared_experts = 1;
  c.experts_per_token = 2;
  c.expert_dim = 32;
  c.hash_layers = 2;
  c.route_scale = 1.5;
  c.swiglu_limit = 10.0;
  c.rope_factor = 4.0;
  c.rope_original_len = 256;
  c.max_positions = 16384;
  c.compress_ratios = {0, 4};
  SetLayers(c, 5, 1);
  return c;
}

ModelConfig Mini() {
  ModelConfig c = Nano();
  c.vocab = 512;
  c.dim = 256;
  c.heads = 4;
  c.head_dim = 512;
  c.q_lora = 128;
  c.o_lora = 64;
  c.index_heads = 4;
  c.index_dim = 128;
  c.index_topk = 128;
  c.experts = 8;
  c.expert_dim = 128;
  c.hash_layers = 3;
  c.rope_factor = 16.0;
  c.rope_original_len = 65536;
  c.max_positions = 1 << 20;
  c.compress_ratios = {0, 0, 4};
  SetLayers(c, 8, 1);
  return c;
}

ModelConfig Small() {
  ModelConfig c = Mini();
  c.dim = 512;
  c.heads = 8;
  c.q_lora = 256;
  c.o_lora = 128;
  c.o_groups = 4;
  c.index_heads = 8;
  c.index_topk = 256;
  c.experts = 16;
  c.experts_per_token = 4;
  c.expert_dim = 256;
  SetLayers(c, 12, 1);
  return c;
}

}  // namespace

absl::StatusOr<ModelConfig> PresetConfig(const std::string& name) {
  if (name == "nano") return Nano();
  if (name == "mini") return Mini();
  if (name == "small") return Small();
  return absl::InvalidArgumentError(
      absl::StrCat("no preset \"", name, "\"; there are nano, mini and small"));
}

void SetLayers(ModelConfig& config, int64_t layers, int64_t mtp_layers) {
  const auto first = std::find_if(config.compress_ratios.begin(), config.compress_ratios.end(),
                                  [](int64_t ratio) { return ratio != 0; });
  const int64_t window_only = first - config.compress_ratios.begin();
  config.layers = layers;
  config.mtp_layers = mtp_layers;
  config.hash_layers = std::min(config.hash_layers, layers);
  config.compress_ratios.clear();
  for (int64_t layer = 0; layer < layers; ++layer) {
    const int64_t compressing = layer - window_only;
    config.compress_ratios.push_back(compressing < 0 ? 0 : compressing % 2 == 0 ? 4 : 128);
  }
  if (mtp_layers > 0) config.compress_ratios.push_back(0);
}

}  // namespace cairn::engine
