// config.h: the shape of a DeepSeek-V4 model, read from config.json in either spelling: the model
// card's (Hugging Face names) or the reference's inference/config.json (ModelArgs names). Fields
// are named as in the report's section 2.
//
// Threads: values. Errors: INVALID_ARGUMENT naming the field, what it was and what it may be.
#ifndef CAIRN_ENGINE_MODEL_CONFIG_H_
#define CAIRN_ENGINE_MODEL_CONFIG_H_

#include <cstdint>
#include <string>
#include <vector>

#include "store/base/status.h"

namespace cairn::engine {

struct ModelConfig {
  int64_t vocab = 0;
  int64_t dim = 0;         // hidden size
  int64_t layers = 0;      // main layers, without MTP
  int64_t mtp_layers = 0;  // 0 or 1
  int64_t heads = 0;
  int64_t head_dim = 0;  // c: one K = V vector
  int64_t rope_dim = 0;  // the last rope_dim of head_dim
  int64_t q_lora = 0;
  int64_t o_lora = 0;  // per group
  int64_t o_groups = 0;
  int64_t window = 0;
  std::vector<int64_t> compress_ratios;  // layers + mtp_layers numbers: 0, 4 or 128
  int64_t index_heads = 0;
  int64_t index_dim = 0;
  int64_t index_topk = 0;
  int64_t experts = 0;         // routed
  int64_t shared_experts = 0;  // 1
  int64_t experts_per_token = 0;
  int64_t expert_dim = 0;   // moe_intermediate_size
  int64_t hash_layers = 0;  // layers [0, hash_layers) route by token id
  double route_scale = 1.0;
  double swiglu_limit = 0.0;  // 0: none
  int64_t hc = 4;             // residual streams
  int64_t hc_sinkhorn_iters = 20;
  double hc_eps = 1e-6;
  double norm_eps = 1e-6;
  double rope_theta = 10000.0;            // ratio-0 layers, no YaRN
  double compress_rope_theta = 160000.0;  // ratio-4 and ratio-128 layers, with YaRN
  double rope_factor = 1.0;
  int64_t rope_original_len = 0;  // 0: no YaRN
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  int64_t max_positions = 0;

  // Layer index `layers` is the MTP block.
  int64_t ratio(int64_t layer) const { return compress_ratios[static_cast<size_t>(layer)]; }

  // One line of canonical "name=value" text: part of the layout's identity.
  std::string Canonical() const;
};

// `path`: a config.json or the directory that holds it.
absl::StatusOr<ModelConfig> LoadConfig(const std::string& path);
absl::StatusOr<ModelConfig> ParseConfig(const std::string& json,
                                        const std::string& name_for_errors);

// Bounds and consistency of a config however it came about; LoadConfig and ParseConfig end with it.
absl::Status CheckConfig(const ModelConfig& config, const std::string& name_for_errors);

// The model card's spelling. `quantised`: FP8 linears and FP4 experts.
std::string ModelCardJson(const ModelConfig& config, bool quantised);

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_MODEL_CONFIG_H_
