#include <immintrin.h>

#include "kernels/cpu/row_loops.h"
#include "kernels/cpu/vector_ops.h"

namespace cairn::kernels {
namespace {

constexpr int64_t kGroup = 64;

// kHeads heads against kRows rows at once: each loaded vector serves several products.
template <int kHeads, int kRows>
inline void ScoreRows(const float* q, int64_t dim, const float* rows, float scale, float* z,
                      int64_t ldz) {
  __m256 acc[kHeads][kRows];
  for (auto& head : acc) {
    for (__m256& v : head) v = _mm256_setzero_ps();
  }
  for (int64_t e = 0; e < dim; e += 8) {
    __m256 row[kRows];
    for (int r = 0; r < kRows; ++r) row[r] = _mm256_loadu_ps(rows + r * dim + e);
    for (int h = 0; h < kHeads; ++h) {
      const __m256 v = _mm256_loadu_ps(q + e * kHeads + h * 8);
      for (int r = 0; r < kRows; ++r) acc[h][r] = _mm256_fmadd_ps(v, row[r], acc[h][r]);
    }
  }
  for (int h = 0; h < kHeads; ++h) {
    for (int r = 0; r < kRows; ++r) z[h * ldz + r] = AddLanes(acc[h][r]) * scale;
  }
}

template <int kHeads>
void ScoreAll(const float* q, int64_t dim, const float* rows, int64_t count, float scale, float* z,
              int64_t ldz) {
  int64_t j = 0;
  for (; j + 2 <= count; j += 2) {
    ScoreRows<kHeads, 2>(q, dim, rows + j * dim, scale, z + j, ldz);
  }
  if (j < count) ScoreRows<kHeads, 1>(q, dim, rows + j * dim, scale, z + j, ldz);
}

void Scores(const float* q, int64_t heads, int64_t dim, const float* rows, int64_t count,
            float scale, float* z, int64_t ldz) {
  const auto run = heads == 4 ? ScoreAll<4> : heads == 2 ? ScoreAll<2> : ScoreAll<1>;
  run(q, dim, rows, count, scale, z, ldz);
}

// Four rows at a time, so that sums stay in registers longer.
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
void AddAll(const float* p, int64_t ldp, int64_t dim, const float* rows, int64_t count,
            float* out) {
  int64_t j = 0;
  for (; j + 4 <= count; j += 4) AddRows<kHeads, 4>(p + j, ldp, rows + j * dim, dim, out);
  for (; j < count; ++j) AddRows<kHeads, 1>(p + j, ldp, rows + j * dim, dim, out);
}

void Add(const float* p, int64_t ldp, int64_t heads, int64_t dim, const float* rows, int64_t count,
         float* out) {
  const auto run = heads == 4 ? AddAll<4> : heads == 2 ? AddAll<2> : AddAll<1>;
  run(p, ldp, dim, rows, count, out);
}

void DecodeFp8(const uint8_t* codes, int64_t groups, const float* scales, float* x) {
  for (int64_t i = 0; i < groups * kGroup; i += 16) {
    // 256: an e4m3 code read as half precision is 2^-8 of its value (the biases differ by 8).
    const __m256 scale = _mm256_set1_ps(scales[i / kGroup] * 256.0f);
    // A code in the upper byte, moved to a half's exponent and mantissa; the sign stays.
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + i));
    const __m128i mask = _mm_set1_epi16(static_cast<short>(0xbf80));
    const __m128i low = _mm_srai_epi16(_mm_unpacklo_epi8(_mm_setzero_si128(), bytes), 1);
    const __m128i high = _mm_srai_epi16(_mm_unpackhi_epi8(_mm_setzero_si128(), bytes), 1);
    const __m256 first = _mm256_cvtph_ps(_mm_and_si128(low, mask));
    const __m256 second = _mm256_cvtph_ps(_mm_and_si128(high, mask));
    _mm256_storeu_ps(x + i, _mm256_mul_ps(first, scale));
    _mm256_storeu_ps(x + i + 8, _mm256_mul_ps(second, scale));
  }
}

}  // namespace

RowLoops Avx2RowLoops() { return {1, 4, 8, Scores, Add, DecodeFp8}; }

}  // namespace cairn::kernels
