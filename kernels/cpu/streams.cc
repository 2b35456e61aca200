#include "kernels/cpu/streams.h"

#include <immintrin.h>

#include <cmath>

namespace cairn::kernels {
namespace {

// Channels [0, dim / 8 * 8). With kStreams known the old streams stay in registers; 0: any number.
template <int kStreams>
void MergeEights(const float* f, const float* post, const float* comb, int64_t streams, int64_t dim,
                 float* s) {
  const int64_t hc = kStreams > 0 ? kStreams : streams;
  for (int64_t i = 0; i + 8 <= dim; i += 8) {
    __m256 old[kStreams > 0 ? kStreams : kStreamsMax];
    for (int64_t j = 0; j < hc; ++j) old[j] = _mm256_loadu_ps(s + j * dim + i);
    const __m256 fi = _mm256_loadu_ps(f + i);
    for (int64_t k = 0; k < hc; ++k) {
      __m256 v = _mm256_mul_ps(_mm256_set1_ps(post[k]), fi);
      for (int64_t j = 0; j < hc; ++j) {
        v = _mm256_fmadd_ps(_mm256_set1_ps(comb[j * hc + k]), old[j], v);
      }
      _mm256_storeu_ps(s + k * dim + i, v);
    }
  }
}

}  // namespace

void CollapseStreams(const float* pre, const float* streams, int64_t hc, int64_t dim, float* x) {
  int64_t i = 0;
  for (; i + 8 <= dim; i += 8) {
    __m256 v = _mm256_mul_ps(_mm256_set1_ps(pre[0]), _mm256_loadu_ps(streams + i));
    for (int64_t j = 1; j < hc; ++j) {
      v = _mm256_fmadd_ps(_mm256_set1_ps(pre[j]), _mm256_loadu_ps(streams + j * dim + i), v);
    }
    _mm256_storeu_ps(x + i, v);
  }
  for (; i < dim; ++i) {
    float v = pre[0] * streams[i];
    for (int64_t j = 1; j < hc; ++j) v = std::fma(pre[j], streams[j * dim + i], v);
    x[i] = v;
  }
}

void MergeStreams(const float* f, const float* post, const float* comb, int64_t hc, int64_t dim,
                  float* streams) {
  if (hc == 4) {
    MergeEights<4>(f, post, comb, hc, dim, streams);
  } else {
    MergeEights<0>(f, post, comb, hc, dim, streams);
  }
  for (int64_t i = dim / 8 * 8; i < dim; ++i) {
    float out[kStreamsMax];
    for (int64_t k = 0; k < hc; ++k) {
      out[k] = post[k] * f[i];
      for (int64_t j = 0; j < hc; ++j) {
        out[k] = std::fma(comb[j * hc + k], streams[j * dim + i], out[k]);
      }
    }
    for (int64_t k = 0; k < hc; ++k) streams[k * dim + i] = out[k];
  }
}

void CombineHeads(const float* products, const float* weights, int64_t heads, float* out) {
  __m256 low = _mm256_setzero_ps();
  __m256 high = _mm256_setzero_ps();
  for (int64_t h = 0; h < heads; ++h) {
    const __m256 w = _mm256_set1_ps(weights[h]);
    const __m256 zero = _mm256_setzero_ps();
    low = _mm256_fmadd_ps(w, _mm256_max_ps(zero, _mm256_loadu_ps(products + h * 16)), low);
    high = _mm256_fmadd_ps(w, _mm256_max_ps(zero, _mm256_loadu_ps(products + h * 16 + 8)), high);
  }
  _mm256_storeu_ps(out, low);
  _mm256_storeu_ps(out + 8, high);
}

}  // namespace cairn::kernels
