// config_fields.h: one table of a config's fields: both spellings, bounds, and whether a file must
// have them. Reading, checking, canonical text and writing all walk it, so none of them can forget
// a field.
//
// Threads: constants. Private to engine/model.
#ifndef CAIRN_ENGINE_MODEL_CONFIG_FIELDS_H_
#define CAIRN_ENGINE_MODEL_CONFIG_FIELDS_H_

#include <cstdint>

#include "engine/model/config.h"

namespace cairn::engine {

enum class Presence : uint8_t {
  kRequired,
  kOptional,  // the default of ModelConfig stands for a missing one
  kYarn,      // required where the file has YaRN, not looked at where it has not
  kYarnOptional,
};

// `card` is the model card's key, `reference` that of inference/config.json. A dot leads into a
// nested object.
template <typename T>
struct ConfigField {
  const char* card;
  const char* reference;
  T ModelConfig::*member;
  T least, most;
  Presence presence = Presence::kRequired;
};

inline constexpr int64_t kDimensionMax = 1 << 16;
inline constexpr int64_t kPositionsMax = 1 << 23;  // kBlocksPerPrefixMax blocks

inline constexpr ConfigField<int64_t> kIntFields[] = {
    {"vocab_size", "vocab_size", &ModelConfig::vocab, 1, 1 << 21},
    {"hidden_size", "dim", &ModelConfig::dim, 1, kDimensionMax},
    {"num_hidden_layers", "n_layers", &ModelConfig::layers, 1, 200},
    {"num_nextn_predict_layers", "n_mtp_layers", &ModelConfig::mtp_layers, 0, 1},
    {"num_attention_heads", "n_heads", &ModelConfig::heads, 1, 1024},
    {"head_dim", "head_dim", &ModelConfig::head_dim, 2, 8192},
    {"qk_rope_head_dim", "rope_head_dim", &ModelConfig::rope_dim, 2, 8192},
    {"q_lora_rank", "q_lora_rank", &ModelConfig::q_lora, 1, kDimensionMax},
    {"o_lora_rank", "o_lora_rank", &ModelConfig::o_lora, 1, kDimensionMax},
    {"o_groups", "o_groups", &ModelConfig::o_groups, 1, 1024},
    {"sliding_window", "window_size", &ModelConfig::window, 1, 128},
    {"index_n_heads", "index_n_heads", &ModelConfig::index_heads, 1, 1024},
    {"index_head_dim", "index_head_dim", &ModelConfig::index_dim, 2, 8192},
    {"index_topk", "index_topk", &ModelConfig::index_topk, 1, kPositionsMax},
    {"n_routed_experts", "n_routed_experts", &ModelConfig::experts, 1, 1024},
    {"n_shared_experts", "n_shared_experts", &ModelConfig::shared_experts, 1, 1},
    {"num_experts_per_tok", "n_activated_experts", &ModelConfig::experts_per_token, 1, 64},
    {"moe_intermediate_size", "moe_inter_dim", &ModelConfig::expert_dim, 1, kDimensionMax},
    {"num_hash_layers", "n_hash_layers", &ModelConfig::hash_layers, 0, 200},
    {"hc_mult", "hc_mult", &ModelConfig::hc, 1, 16},
    {"hc_sinkhorn_iters", "hc_sinkhorn_iters", &ModelConfig::hc_sinkhorn_iters, 1, 1000},
    {"rope_scaling.original_max_position_embeddings", "original_seq_len",
     &ModelConfig::rope_original_len, 0, kPositionsMax, Presence::kYarn},
    // Where it is missing, original length times factor stands for it.
    {"max_position_embeddings", "max_seq_len", &ModelConfig::max_positions, 1, kPositionsMax,
     Presence::kOptional},
};

inline constexpr ConfigField<double> kRealFields[] = {
    {"routed_scaling_factor", "route_scale", &ModelConfig::route_scale, 1e-6, 1e6},
    {"swiglu_limit", "swiglu_limit", &ModelConfig::swiglu_limit, 0.0, 1e9},
    {"hc_eps", "hc_eps", &ModelConfig::hc_eps, 1e-20, 0.1, Presence::kOptional},
    {"rms_norm_eps", "norm_eps", &ModelConfig::norm_eps, 1e-20, 0.1, Presence::kOptional},
    {"rope_theta", "rope_theta", &ModelConfig::rope_theta, 1.5, 1e12},
    {"compress_rope_theta", "compress_rope_theta", &ModelConfig::compress_rope_theta, 1.5, 1e12},
    {"rope_scaling.factor", "rope_factor", &ModelConfig::rope_factor, 1.0, 1e6, Presence::kYarn},
    {"rope_scaling.beta_fast", "beta_fast", &ModelConfig::beta_fast, 1e-3, 1e6,
     Presence::kYarnOptional},
    {"rope_scaling.beta_slow", "beta_slow", &ModelConfig::beta_slow, 1e-3, 1e6,
     Presence::kYarnOptional},
};

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_MODEL_CONFIG_FIELDS_H_
