// ops.h: the small operations of the reference model, each a loop that reads like its formula.
//
// Everything is F32 and scalar; sums run by ascending index. Exponentials and roots are libm's.
// Only the number formats' single casts come from kernels/cpu/formats.h.
//
// Threads: pure functions. Shapes: Rows is [count, width]; letters as in forward/step.h.
#ifndef CAIRN_ENGINE_REFERENCE_OPS_H_
#define CAIRN_ENGINE_REFERENCE_OPS_H_

#include <cstdint>
#include <span>
#include <vector>

#include "engine/model/weights.h"
#include "engine/state/numerics.h"

namespace cairn::engine::reference {

struct Rows {
  Rows(int64_t n, int64_t w) : count(n), width(w), values(static_cast<size_t>(n * w), 0.0f) {}
  std::span<float> operator[](int64_t r) {
    return {values.data() + r * width, static_cast<size_t>(width)};
  }
  std::span<const float> operator[](int64_t r) const {
    return {values.data() + r * width, static_cast<size_t>(width)};
  }
  int64_t count;
  int64_t width;
  std::vector<float> values;
};

// What a forward pass is made with; lives as long as the pass.
struct Setup {
  const ModelConfig& config;
  Numerics numerics = Numerics::kPlain;
  RopeRows rope_rows = RopeRows::kBf16;
};

// Values of a BF16 or F32 tensor.
std::vector<float> Values(const TensorView& tensor);

// y = W x. Spec section 2.8: under full numerics the input of an FP8 or FP4 weight is rounded to
// FP8 first, under full-amx that of a BF16 weight to BF16.
Rows Linear(const Setup& setup, const LinearWeight& w, const Rows& x);
// The same for rows [begin, begin + n) of W, never rounding the input.
Rows LinearSlice(const LinearWeight& w, int64_t begin, int64_t n, const Rows& x);
// x as a weight takes it that is BF16, or that the reference expands to BF16 (wo_a).
Rows Bf16Input(const Setup& setup, const Rows& x);

// Spec section 2: x * rsqrt(mean(x^2) + eps) * w. An empty weight is 1.
void RmsNorm(const Setup& setup, std::span<float> x, std::span<const float> weight);
void RmsNormRows(const Setup& setup, Rows& x, const TensorView& weight);

// Spec section 2.3. Rotates the last rope_dim values of x; the layer's ratio decides base and YaRN.
void RotateLast(const Setup& setup, int64_t ratio, int64_t position, bool inverse,
                std::span<float> x);

// Spec section 3.1, in place. Groups of 64 or 128 to e4m3 and of 32 to e2m1, with a power of two
// each.
void RoundFp8(std::span<float> x, size_t group);
void RoundFp4(std::span<float> x);
// What a window or compressed row becomes by being stored; an indexer key or query likewise.
void RoundRow(const Setup& setup, std::span<float> row);
void RoundIndex(const Setup& setup, std::span<float> x);

// Spec section 2.5: Sylvester order, normalised.
void Hadamard(std::span<float> x);

float Sigmoid(float x);
float Dot(std::span<const float> a, std::span<const float> b);

}  // namespace cairn::engine::reference

#endif  // CAIRN_ENGINE_REFERENCE_OPS_H_
