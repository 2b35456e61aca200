#include "kernels/cpu/attention.h"

#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "kernels/cpu/vector_ops.h"

namespace cairn::kernels {
namespace {

// kHeads heads against kRows rows at once: each loaded vector serves several products.
template <int kHeads, int kRows>
inline void Scores(const float* q, int64_t dim, const float* rows, float scale, float* z,
                   int64_t ldz) {
  __m256 acc[kHeads][kRows];
  for (auto& head : acc) {
    for (__m256& v : head) v = _mm256_setzero_ps();
  }
  for (int64_t e = 0; e < dim; e += 8) {
    __m256 row[kRows];
    for (int r = 0; r < kRows; ++r) row[r] = _mm256_loadu_ps(rows + r * dim + e);
    for (int h = 0; h < kHeads; ++h) {
      const __m256 v = _mm256_loadu_ps(q + h * dim + e);
      for (int r = 0; r < kRows; ++r) acc[h][r] = _mm256_fmadd_ps(v, row[r], acc[h][r]);
    }
  }
  for (int h = 0; h < kHeads; ++h) {
    for (int r = 0; r < kRows; ++r) z[h * ldz + r] = AddLanes(acc[h][r]) * scale;
  }
}

template <int kHeads>
void ScoreSegment(const float* q, int64_t dim, const RowSegment& segment, float scale, float* z,
                  int64_t ldz) {
  int64_t j = 0;
  for (; j + 2 <= segment.count; j += 2) {
    Scores<kHeads, 2>(q, dim, segment.rows + j * dim, scale, z + j, ldz);
  }
  if (j < segment.count) Scores<kHeads, 1>(q, dim, segment.rows + j * dim, scale, z + j, ldz);
}

// z becomes exp(z - max); returns the denominator.
float SoftmaxInPlace(float* z, int64_t n, float sink) {
  float top = z[0];
  for (int64_t j = 1; j < n; ++j) top = std::max(top, z[j]);
  const __m256 shift = _mm256_set1_ps(top);
  __m256 sum = _mm256_setzero_ps();
  int64_t j = 0;
  for (; j + 8 <= n; j += 8) {
    const __m256 p = ExpVector(_mm256_sub_ps(_mm256_loadu_ps(z + j), shift));
    _mm256_storeu_ps(z + j, p);
    sum = _mm256_add_ps(sum, p);
  }
  if (j < n) {
    alignas(32) float tail[8] = {};
    for (int64_t i = j; i < n; ++i) tail[i - j] = z[i] = Exp(z[i] - top);
    sum = _mm256_add_ps(sum, _mm256_load_ps(tail));
  }
  return AddLanes(sum) + Exp(sink - top);
}

// out[h] += sum over the segment of p[h][j] * row_j, four rows at a time so that sums stay in
// registers longer.
template <int kHeads, int kRows>
inline void AddRows(const float* p, int64_t ldp, const float* rows, int64_t dim, float* out) {
  __m256 weight[kHeads][kRows];
  for (int h = 0; h < kHeads; ++h) {
    for (int r = 0; r < kRows; ++r) weight[h][r] = _mm256_set1_ps(p[h * ldp + r]);
  }
  for (int64_t e = 0; e < dim; e += 8) {
    __m256 acc[kHeads];
    for (int h = 0; h < kHeads; ++h) acc[h] = _mm256_loadu_ps(out + h * dim + e);
    for (int r = 0; r < kRows; ++r) {
      const __m256 row = _mm256_loadu_ps(rows + r * dim + e);
      for (int h = 0; h < kHeads; ++h) acc[h] = _mm256_fmadd_ps(weight[h][r], row, acc[h]);
    }
    for (int h = 0; h < kHeads; ++h) _mm256_storeu_ps(out + h * dim + e, acc[h]);
  }
}

template <int kHeads>
void AddSegment(const float* p, int64_t ldp, const RowSegment& segment, int64_t dim, float* out) {
  int64_t j = 0;
  for (; j + 4 <= segment.count; j += 4) {
    AddRows<kHeads, 4>(p + j, ldp, segment.rows + j * dim, dim, out);
  }
  for (; j < segment.count; ++j) AddRows<kHeads, 1>(p + j, ldp, segment.rows + j * dim, dim, out);
}

template <int kHeads>
void AttendHeads(const float* q, int64_t dim, const RowSegment& window,
                 const RowSegment& compressed, float scale, const float* sink, float* out,
                 float* z) {
  const int64_t n = window.count + compressed.count;
  ScoreSegment<kHeads>(q, dim, window, scale, z, n);
  ScoreSegment<kHeads>(q, dim, compressed, scale, z + window.count, n);
  float denominator[kHeads];
  for (int h = 0; h < kHeads; ++h) denominator[h] = SoftmaxInPlace(z + h * n, n, sink[h]);
  std::memset(out, 0, sizeof(float) * static_cast<size_t>(kHeads * dim));
  AddSegment<kHeads>(z, n, window, dim, out);
  AddSegment<kHeads>(z + window.count, n, compressed, dim, out);
  for (int h = 0; h < kHeads; ++h) {
    for (int64_t e = 0; e < dim; ++e) out[h * dim + e] /= denominator[h];
  }
}

}  // namespace

void Attend(const float* q, int64_t heads, int64_t dim, const RowSegment& window,
            const RowSegment& compressed, float scale, const float* sink, float* out,
            std::vector<float>& scratch) {
  const int64_t n = window.count + compressed.count;
  if (scratch.size() < static_cast<size_t>(4 * n)) scratch.resize(static_cast<size_t>(4 * n));
  int64_t h = 0;
  for (; h + 4 <= heads; h += 4) {
    AttendHeads<4>(q + h * dim, dim, window, compressed, scale, sink + h, out + h * dim,
                   scratch.data());
  }
  for (; h + 2 <= heads; h += 2) {
    AttendHeads<2>(q + h * dim, dim, window, compressed, scale, sink + h, out + h * dim,
                   scratch.data());
  }
  for (; h < heads; ++h) {
    AttendHeads<1>(q + h * dim, dim, window, compressed, scale, sink + h, out + h * dim,
                   scratch.data());
  }
}

}  // namespace cairn::kernels
