// vector_ops.h: the small F32 operations over one vector, with their orders of operations written
// down.
//
// Sum order "by eight": lane l of eight adds the elements l, l+8, l+16, ... in turn (fma where
// there is a product); then lanes are added as ((0+4)+(2+6)) + ((1+5)+(3+7)). Dot, SumSquares and
// softmax denominators use it.
//
// Exp is ours (a Cody-Waite reduction and a polynomial in fma, within 1 ulp or so of the true
// value), the same bits in the vector and the scalar form, because a C library's depends on its
// version and on the processor.
//
// Threads: pure functions.
#ifndef CAIRN_KERNELS_CPU_VECTOR_OPS_H_
#define CAIRN_KERNELS_CPU_VECTOR_OPS_H_

#include <immintrin.h>

#include <cmath>
#include <cstdint>

namespace cairn::kernels {

namespace internal {
inline constexpr float kLog2E = 1.44269504088896341f;
inline constexpr float kLn2High = 0.693359375f;
inline constexpr float kLn2Low = -2.12194440e-4f;
inline constexpr float kExpMax = 88.0f;
inline constexpr float kExpMin = -87.0f;
inline constexpr float kExpCoefficients[6] = {1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f,
                                              4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f};
}  // namespace internal

// 0 below -87, clamped at exp(88) above. NaN is the caller's error.
inline __m256 ExpVector(__m256 x) {
  using namespace internal;
  const __m256 tiny = _mm256_cmp_ps(x, _mm256_set1_ps(kExpMin), _CMP_LT_OQ);
  x = _mm256_max_ps(_mm256_min_ps(x, _mm256_set1_ps(kExpMax)), _mm256_set1_ps(kExpMin));
  const __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(kLog2E)),
                                   _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m256 r = _mm256_fmadd_ps(n, _mm256_set1_ps(-kLn2High), x);
  r = _mm256_fmadd_ps(n, _mm256_set1_ps(-kLn2Low), r);
  __m256 p = _mm256_set1_ps(kExpCoefficients[0]);
  for (int i = 1; i < 6; ++i) p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(kExpCoefficients[i]));
  p = _mm256_fmadd_ps(p, _mm256_mul_ps(r, r), r);
  p = _mm256_add_ps(p, _mm256_set1_ps(1.0f));
  const __m256i power =
      _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
  return _mm256_andnot_ps(tiny, _mm256_mul_ps(p, _mm256_castsi256_ps(power)));
}

inline float Exp(float x) { return _mm256_cvtss_f32(ExpVector(_mm256_set1_ps(x))); }

inline float Sigmoid(float x) { return 1.0f / (1.0f + Exp(-x)); }

// The first n lanes, the others 0; n in [0, 8).
inline __m256i TailMask(int64_t n) {
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), lanes);
}

// The closing step of a sum by eight.
inline float AddLanes(__m256 v) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}

float Dot(const float* a, const float* b, int64_t n);
float SumSquares(const float* a, int64_t n);

// out[i] = x[i] * rsqrt(mean(x^2) + eps) * weight[i]; weight may be null (1). out may be x. Section
// 2 of the report's code: all in F32.
void RmsNorm(const float* x, const float* weight, int64_t n, float eps, float* out);

// y[i] = silu(min(gate[i], limit)) * clamp(up[i], -limit, limit) * factor; limit <= 0: no clamp. y
// may be gate.
void SwiGlu(const float* gate, const float* up, int64_t n, float limit, float factor, float* y);

// y += a * x, one fma an element.
void Axpy(float a, const float* x, int64_t n, float* y);

// In place: the Sylvester-ordered Hadamard transform of n = 2^k values, times n^-0.5 (one
// multiplication at the end).
void Hadamard(float* x, int64_t n);

// Pools m candidates a channel: out[e] = sum_t w_t[e] kv[t][e], w = softmax over t of score[t][e].
// Order: max, then t ascending for the denominator and (fma) for the sum, one division. A candidate
// with score -inf counts as 0. kv and score: m pointers to n floats each.
void SoftmaxPool(const float* const* kv, const float* const* score, int64_t m, int64_t n,
                 float* out);

}  // namespace cairn::kernels

#endif  // CAIRN_KERNELS_CPU_VECTOR_OPS_H_
