// schema.h: every tensor of a checkpoint, once: its official name, what it is, its shape, and the
// field of Weights it belongs to. Binding and making models both walk this list, so they cannot
// disagree.
//
// Threads: pure. Units: elements. Private to engine/model.
#ifndef CAIRN_ENGINE_MODEL_SCHEMA_H_
#define CAIRN_ENGINE_MODEL_SCHEMA_H_

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "engine/model/weights.h"

namespace cairn::engine {

enum class TensorRole : uint8_t {
  kEmbedding,   // BF16 or F32 matrix
  kHead,        // BF16 or F32 matrix
  kNorm,        // BF16 or F32 vector, around 1
  kLinear,      // a matrix that may be FP8
  kExpert,      // a routed expert's matrix: may be FP4 or FP8
  kPlain,       // a matrix that is never quantised: compressor wkv
  kScorer,      // the same: weights_proj, wgate
  kRouter,      // the same: gate
  kSink,        // F32
  kPosition,    // F32: ape
  kRouterBias,  // F32
  kHyperFn,     // F32
  kHyperBase,   // F32
  kHyperScale,  // F32
  kTokenTable,  // I64 or I32: tid2eid
};

// Exactly one of `vector` and `linear` is set. A linear's tensors are `name`.weight and, if
// quantised, `name`.scale; a vector's tensor is `name` itself.
struct TensorSlot {
  std::string name;
  TensorRole role;
  std::vector<int64_t> shape;  // logical: a linear's is [out, in]
  TensorView* vector = nullptr;
  LinearWeight* linear = nullptr;

  std::string tensor_name() const { return linear != nullptr ? name + ".weight" : name; }
};

// The types a tensor of this role may have on disk.
std::span<const DType> TypesOf(TensorRole role);

// Sizes `weights.layers`, its experts and `weights.mtp` by weights.config, then visits every slot
// in the order of the forward pass. The pointers of a slot stay valid while `weights` is neither
// moved nor copied.
void VisitTensors(Weights& weights, const std::function<void(const TensorSlot&)>& visit);

// How `logical` [out, in] lies on disk: FP4 packs two values a byte.
std::vector<int64_t> StoredShape(DType type, const std::vector<int64_t>& logical);
// The shape of the scales beside it; empty when the type has none.
std::vector<int64_t> ScaleShape(DType type, const std::vector<int64_t>& logical);

inline constexpr int64_t kFp8Block = 128;  // one scale for 128 x 128 weights
inline constexpr int64_t kFp4Group = 32;   // one scale for 32 weights along the input

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_MODEL_SCHEMA_H_
