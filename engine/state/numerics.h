// numerics.h: which roundings the engine makes. A part of every key: KV of two modes never meets.
#ifndef CAIRN_ENGINE_STATE_NUMERICS_H_
#define CAIRN_ENGINE_STATE_NUMERICS_H_

#include <cstdint>
#include <optional>
#include <string>

namespace cairn::engine {

enum class Numerics : uint8_t {
  kPlain = 0,  // none: F32 throughout
  kKvq = 1,    // window, compressed and indexer rows (and indexer queries) quantised
  kFull = 2,   // and the inputs of FP8 and FP4 linears, to FP8 in groups of 128
  // kFull as engine/cuda computes it: activations in BF16, sums in the order of the GPU's tensor
  // cores. Rows of the same form, with other bits in them.
  kFullSm90a = 3,
  // kFull, the inputs of BF16 linears and of wo_a to BF16, as all of the reference's activations
  // are, and sums of all of these in the order of AMX (kernels/cpu/linear.h, PairLinear): the same
  // bits with AMX or AVX-512's BF16, fast, and without them, slower. Rows of the same form, with
  // other bits in them.
  kFullAmx = 4,
};

// Whether the inputs of FP8 and FP4 linears are rounded to FP8.
constexpr bool RoundsInputs(Numerics numerics) {
  return numerics == Numerics::kFull || numerics == Numerics::kFullSm90a ||
         numerics == Numerics::kFullAmx;
}

// How the rope dims of a quantised row are kept. The reference's tensors are BF16, so there (and in
// every deployment) the row is 584 bytes; kF32 leaves them unrounded, as float64 references of the
// arithmetic do.
enum class RopeRows : uint8_t { kBf16 = 0, kF32 = 1 };

// Raised whenever an order of sums or a rounding changes, so that rows made before are never mixed
// with rows made after.
inline constexpr int kNumericsVersion = 3;

// "plain", "kvq", "full", "full-sm90a", "full-amx".
const char* NumericsName(Numerics numerics);
// Those of the CPU, which are there to be chosen from.
std::optional<Numerics> ParseNumerics(const std::string& name);

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_STATE_NUMERICS_H_
