// maker.h: writes a model with random weights: official names, a config.json in the model card's
// spelling, one file or shards. The same options give the same bytes on every machine; the same
// seed gives the same tensors however sharded.
//
// Threads:   one call uses up to `threads` threads; calls for different folders are independent.
// Units:     bytes. Memory: one shard at a time.
// Errors:    INVALID_ARGUMENT for a config or a format that cannot be; FAILED_PRECONDITION when the
// folder holds a model
//            already; RESOURCE_EXHAUSTED for a full disk. config.json is written last: a folder
//            without it is unfinished.
#ifndef CAIRN_ENGINE_MODEL_MAKER_H_
#define CAIRN_ENGINE_MODEL_MAKER_H_

#include <cstdint>
#include <optional>
#include <string>

#include "engine/model/config.h"
#include "store/base/status.h"

namespace cairn::engine {

enum class WeightFormat : uint8_t {
  kBf16,    // BF16, and F32 where the official checkpoints have F32
  kFp8Fp4,  // as released: FP8 linears, FP4 routed experts, the rest BF16 and F32
};

std::optional<WeightFormat> ParseWeightFormat(const std::string& name);  // "bf16", "fp8fp4"

struct MakeOptions {
  ModelConfig config;
  WeightFormat format = WeightFormat::kBf16;
  uint64_t seed = 0;
  uint64_t shard_bytes = 4ull << 30;  // a shard holds at least one tensor, whatever its size
  int threads = 1;
};

absl::Status MakeModel(const MakeOptions& options, const std::string& folder);

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_MODEL_MAKER_H_
