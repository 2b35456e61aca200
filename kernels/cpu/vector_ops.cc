#include "kernels/cpu/vector_ops.h"

#include <algorithm>
#include <limits>

namespace cairn::kernels {
float Dot(const float* a, const float* b, int64_t n) {
  __m256 acc = _mm256_setzero_ps();
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    acc = _mm256_fmadd_ps(_mm256_loadu_ps(a + i), _mm256_loadu_ps(b + i), acc);
  if (i < n) {
    const __m256i mask = TailMask(n - i);
    acc = _mm256_fmadd_ps(_mm256_maskload_ps(a + i, mask), _mm256_maskload_ps(b + i, mask), acc);
  }
  return AddLanes(acc);
}

float SumSquares(const float* a, int64_t n) { return Dot(a, a, n); }

void RmsNorm(const float* x, const float* weight, int64_t n, float eps, float* out) {
  const float mean = SumSquares(x, n) / static_cast<float>(n);
  const float scale = 1.0f / std::sqrt(mean + eps);
  for (int64_t i = 0; i < n; ++i) {
    const float v = x[i] * scale;
    out[i] = weight == nullptr ? v : v * weight[i];
  }
}

void SwiGlu(const float* gate, const float* up, int64_t n, float limit, float factor, float* y) {
  const __m256 top = _mm256_set1_ps(limit > 0 ? limit : std::numeric_limits<float>::infinity());
  const __m256 bottom = _mm256_sub_ps(_mm256_setzero_ps(), top);
  const __m256 one = _mm256_set1_ps(1.0f);
  for (int64_t i = 0; i < n; i += 8) {
    const __m256i mask = n - i >= 8 ? _mm256_set1_epi32(-1) : TailMask(n - i);
    const __m256 a = _mm256_min_ps(_mm256_maskload_ps(gate + i, mask), top);
    const __m256 b = _mm256_max_ps(_mm256_min_ps(_mm256_maskload_ps(up + i, mask), top), bottom);
    const __m256 down = _mm256_add_ps(one, ExpVector(_mm256_sub_ps(_mm256_setzero_ps(), a)));
    const __m256 silu = _mm256_div_ps(a, down);
    _mm256_maskstore_ps(y + i, mask, _mm256_mul_ps(_mm256_mul_ps(silu, b), _mm256_set1_ps(factor)));
  }
}

void Axpy(float a, const float* x, int64_t n, float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = std::fma(a, x[i], y[i]);
}

void Hadamard(float* x, int64_t n) {
  for (int64_t half = 1; half < n; half *= 2) {
    for (int64_t i = 0; i < n; i += 2 * half) {
      for (int64_t j = i; j < i + half; ++j) {
        const float a = x[j];
        const float b = x[j + half];
        x[j] = a + b;
        x[j + half] = a - b;
      }
    }
  }
  const float scale = 1.0f / std::sqrt(static_cast<float>(n));
  for (int64_t i = 0; i < n; ++i) x[i] *= scale;
}

void SoftmaxPool(const float* const* kv, const float* const* score, int64_t m, int64_t n,
                 float* out) {
  for (int64_t e = 0; e < n; e += 8) {
    const __m256i mask = n - e >= 8 ? _mm256_set1_epi32(-1) : TailMask(n - e);
    __m256 top = _mm256_set1_ps(-std::numeric_limits<float>::infinity());
    for (int64_t t = 0; t < m; ++t)
      top = _mm256_max_ps(top, _mm256_maskload_ps(score[t] + e, mask));
    __m256 denominator = _mm256_setzero_ps();
    __m256 sum = _mm256_setzero_ps();
    for (int64_t t = 0; t < m; ++t) {
      const __m256 w = ExpVector(_mm256_sub_ps(_mm256_maskload_ps(score[t] + e, mask), top));
      denominator = _mm256_add_ps(denominator, w);
      sum = _mm256_fmadd_ps(w, _mm256_maskload_ps(kv[t] + e, mask), sum);
    }
    _mm256_maskstore_ps(out + e, mask, _mm256_div_ps(sum, denominator));
  }
}

}  // namespace cairn::kernels
