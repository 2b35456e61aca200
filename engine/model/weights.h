// weights.h: the official checkpoint names bound to fields, every type and shape checked against
// the config.
//
// Bind looks at names, types, shapes and sizes only; it takes no memory for weights. All that is
// missing, misshapen, of a wrong type or unknown is found; the error names the first few and counts
// the rest. The views point into the TensorFile.
//
// Threads: immutable after Bind. Ownership: Weights keeps its TensorFile alive.
#ifndef CAIRN_ENGINE_MODEL_WEIGHTS_H_
#define CAIRN_ENGINE_MODEL_WEIGHTS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/model/config.h"
#include "engine/model/safetensors.h"
#include "store/base/digest.h"
#include "store/base/status.h"

namespace cairn::engine {

// y = W x with W [out, in]. Types: BF16, F32; F8_E4M3 with `scale` F8_E8M0 [ceil(out/128),
// ceil(in/128)]; I8 (two E2M1 a byte, low nibble first, bytes [out, in/2]) with `scale` F8_E8M0
// [out, in/32].
struct LinearWeight {
  TensorView weight;
  TensorView scale;
  int64_t out = 0;
  int64_t in = 0;
};

struct HyperConnectionWeights {  // hc_attn_*, hc_ffn_*: fn F32 [24, hc*d], base [24], scale [3];
                                 // head: [hc, hc*d], [hc], [1]
  TensorView fn, base, scale;
};

struct CompressorWeights {
  TensorView ape;  // F32 [ratio, coff*D]
  LinearWeight wkv, wgate;
  TensorView norm;  // BF16 [D]
};

struct IndexerWeights {
  LinearWeight wq_b, weights_proj;
  CompressorWeights compressor;
};

struct AttentionWeights {
  LinearWeight wq_a, wq_b, wkv, wo_a, wo_b;
  TensorView q_norm, kv_norm, sink;
  CompressorWeights compressor;  // ratio 4 and 128
  IndexerWeights indexer;        // ratio 4
};

struct ExpertWeights {
  LinearWeight w1, w2, w3;  // gate, down, up
};

struct MoeWeights {
  LinearWeight gate;
  TensorView bias;     // F32 [experts]; empty in hash layers
  TensorView tid2eid;  // I64 or I32 [vocab, experts_per_token]; hash layers only
  std::vector<ExpertWeights> experts;
  ExpertWeights shared;
};

struct BlockWeights {
  HyperConnectionWeights hc_attn, hc_ffn;
  TensorView attn_norm, ffn_norm;
  AttentionWeights attn;
  MoeWeights ffn;
};

struct MtpWeights {
  BlockWeights block;
  LinearWeight e_proj, h_proj;
  TensorView enorm, hnorm, norm;
  HyperConnectionWeights hc_head;
};

struct Weights {
  ModelConfig config;
  std::shared_ptr<TensorFile> file;
  LinearWeight embed;  // [vocab, dim]
  LinearWeight head;   // [vocab, dim]
  TensorView norm;
  HyperConnectionWeights hc_head;
  std::vector<BlockWeights> layers;
  std::vector<MtpWeights> mtp;  // 0 or 1

  // SHA-256 over the sorted (name, type, shape, SHA-256 of bytes) of all tensors: equal for the
  // same weights however they are sharded. Reads every byte once, with `threads` threads.
  Digest Identity(int threads) const;

  // Reads every byte once; INVALID_ARGUMENT names the first tensor (by name) that holds a NaN or an
  // infinity.
  absl::Status CheckFinite(int threads) const;
};

absl::StatusOr<Weights> BindWeights(const ModelConfig& config, std::shared_ptr<TensorFile> file);

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_MODEL_WEIGHTS_H_
