#include "kernels/cpu/rope.h"

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "kernels/cpu/vector_ops.h"

namespace cairn::kernels {
namespace {

// The (fractional) pair index that turns `turns` times within `length` positions.
double TurningDim(double turns, const RopeOptions& o) {
  return static_cast<double>(o.dim) *
         std::log(static_cast<double>(o.original_len) / (turns * 2.0 * std::numbers::pi)) /
         (2.0 * std::log(o.base));
}

}  // namespace

RopeTable::RopeTable(const RopeOptions& o) {
  const int64_t pairs = o.dim / 2;
  double low = 0.0;
  double high = 0.0;
  if (o.original_len > 0) {
    low = std::max(std::floor(TurningDim(o.beta_fast, o)), 0.0);
    high = std::min(std::ceil(TurningDim(o.beta_slow, o)), static_cast<double>(o.dim - 1));
    if (low == high) high += 0.001;
  }
  for (int64_t i = 0; i < pairs; ++i) {
    double freq = 1.0 / std::pow(o.base, 2.0 * static_cast<double>(i) / static_cast<double>(o.dim));
    if (o.original_len > 0) {
      const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
      freq = freq / o.factor * ramp + freq * (1.0 - ramp);
    }
    freq_.push_back(static_cast<float>(freq));
  }
}

void RopeTable::Angles(int64_t position, float* cos_sin) const {
  for (size_t i = 0; i < freq_.size(); ++i) {
    const float angle = static_cast<float>(position) * freq_[i];
    cos_sin[2 * i] = static_cast<float>(std::cos(static_cast<double>(angle)));
    cos_sin[2 * i + 1] = static_cast<float>(std::sin(static_cast<double>(angle)));
  }
}

// Written with the instructions it means. As a plain loop, GCC 12 at -O3 fuses one of each two
// products into the addition (vfmaddsub), although -ffp-contract=off forbids it.
void Rotate(float* x, const float* cos_sin, int64_t dim, bool inverse) {
  const __m256 sign = _mm256_set1_ps(inverse ? -0.0f : 0.0f);
  for (int64_t i = 0; i < dim; i += 8) {
    const __m256i mask = dim - i >= 8 ? _mm256_set1_epi32(-1) : TailMask(dim - i);
    const __m256 pairs = _mm256_maskload_ps(x + i, mask);  // a b a b ...
    const __m256 turns = _mm256_maskload_ps(cos_sin + i, mask);
    const __m256 cosines = _mm256_moveldup_ps(turns);
    const __m256 sines = _mm256_xor_ps(_mm256_movehdup_ps(turns), sign);
    const __m256 swapped = _mm256_permute_ps(pairs, 0xb1);  // b a b a ...
    // (a c - b s, b c + a s)
    const __m256 out =
        _mm256_addsub_ps(_mm256_mul_ps(pairs, cosines), _mm256_mul_ps(swapped, sines));
    _mm256_maskstore_ps(x + i, mask, out);
  }
}

}  // namespace cairn::kernels
