// model.h: a loaded model: the weights of weights.h packed for the kernels, one struct an idea.
//
// Routed experts are packed when a step first needs them, as many as there is memory for
// (expert_cache.h), the embedding's rows are read as tokens need them; everything else is packed at
// loading.
//
// Threads:   immutable after Load but for the experts' cache, which looks after itself; any number
//            of Forward objects may share it.
// Ownership: owns its packed weights, and keeps the files open.
#ifndef CAIRN_ENGINE_FORWARD_MODEL_H_
#define CAIRN_ENGINE_FORWARD_MODEL_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/forward/embedding.h"
#include "engine/forward/expert_cache.h"
#include "engine/forward/linear_op.h"
#include "engine/model/weights.h"
#include "engine/state/cached_session.h"
#include "engine/state/kv_layout.h"
#include "engine/state/numerics.h"
#include "kernels/cpu/packed_matrix.h"
#include "kernels/cpu/rope.h"
#include "store/base/digest.h"
#include "store/base/status.h"

namespace cairn::engine {

struct HyperConnectionOp {
  kernels::PackedMatrix fn;  // [24, hc*dim] in a block, [hc, hc*dim] at the head
  std::vector<float> base;
  std::vector<float> scale;
};

struct CompressorOp {
  int64_t ratio = 0;
  int64_t dim = 0;         // D
  int64_t width = 0;       // D or, for ratio 4, 2 D
  std::vector<float> ape;  // [ratio, width]
  LinearOp wkv, wgate;
  std::vector<float> norm;
};

struct IndexerOp {
  LinearOp wq_b, weights_proj;
  CompressorOp compressor;
};

struct AttentionOp {
  LinearOp wq_a, wq_b, wkv, wo_b;
  std::vector<LinearOp> wo_a;  // one a group
  std::vector<float> q_norm, kv_norm, sink;
  CompressorOp compressor;
  IndexerOp indexer;
};

struct MoeOp {
  int64_t layer = 0;  // in Model::experts
  LinearOp gate;
  std::vector<float> bias;       // empty in hash layers
  std::vector<int32_t> tid2eid;  // [vocab, experts_per_token]; hash layers only
  ExpertOp shared;
};

struct BlockOp {
  int64_t index = 0;  // main layers 0..layers-1; the MTP block is `layers`
  int64_t ratio = 0;
  HyperConnectionOp hc_attn, hc_ffn;
  std::vector<float> attn_norm, ffn_norm;
  AttentionOp attn;
  MoeOp ffn;
};

struct HeadOp {
  HyperConnectionOp hc;
  std::vector<float> norm;
};

struct MtpOp {
  BlockOp block;
  LinearOp e_proj, h_proj;
  std::vector<float> enorm, hnorm;
  HeadOp head;
};

struct Model {
  ModelConfig config;
  Numerics numerics = Numerics::kPlain;
  std::unique_ptr<KvLayout> layout;
  kernels::RopeTable rope_window;      // ratio-0 layers
  kernels::RopeTable rope_compressed;  // ratio-4 and ratio-128 layers, YaRN
  Embedding embed;
  LinearOp vocab_head;
  HeadOp head;
  std::vector<BlockOp> layers;
  std::unique_ptr<MtpOp> mtp;
  Digest weights_identity;
  std::unique_ptr<ExpertCache> experts;  // of all layers, MTP's behind the main ones

  const kernels::RopeTable& rope(int64_t ratio) const {
    return ratio == 0 ? rope_window : rope_compressed;
  }
  CachedModel cached() const {
    return {.config = config, .layout = *layout, .weights = weights_identity};
  }
};

// Reads config.json and the weights in `directory`, checks them whole, packs them. `numerics`
// unset: full-amx for FP8 or FP4 weights where AMX or AVX-512's BF16 is and is right, full where
// not; plain otherwise. Errors: INVALID_ARGUMENT, DATA_LOSS, NOT_FOUND naming the file and the
// tensor or field; RESOURCE_EXHAUSTED, before memory is taken, if there is too little for the
// experts of a step.
struct LoadOptions {
  std::optional<Numerics> numerics = std::nullopt;
  int threads = 1;
  RopeRows rope_rows = RopeRows::kBf16;
  // Memory for routed experts; unset: for all of them, or else what the machine has left.
  std::optional<uint64_t> expert_bytes = std::nullopt;
  // Memory that the caller is going to take beside the model.
  uint64_t reserved_bytes = 0;
  // For tests: in place of the machine's files, and outliving the model.
  store::FileSystem* files = nullptr;
};
absl::StatusOr<std::unique_ptr<Model>> LoadModel(const std::string& directory,
                                                 const LoadOptions& options);

// The same from weights already bound.
absl::StatusOr<std::unique_ptr<Model>> PackModel(const Weights& weights,
                                                 const LoadOptions& options);

// For a start's messages: the numerics' name, and of full-amx what computes it.
std::string AboutNumerics(const Model& model);

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_FORWARD_MODEL_H_
