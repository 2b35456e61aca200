// Loops over rows with AVX-512. A sum "by eight" has eight lanes, so a vector holds those of two
// heads. Compiled for x86-64-v4; what that asks of this file: products_avx512.cc.
#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/row_loops.h"
#include "kernels/cpu/vector_loops.h"

namespace cairn::kernels {
namespace {

// Sums of one row's and two heads' products, four such: z[a][0..4) and z[b][0..4), each the sum of
// its eight lanes as AddLanes makes it.
struct FourRows {
  __m128 first, second;  // of the heads
};
[[gnu::always_inline]] inline FourRows AddLanesOfFour(const __m512 (&v)[4]) {
  // In parts of four lanes: the lower and the upper halves of both heads of two rows.
  const auto halves = [](__m512 x, __m512 y) __attribute__((always_inline)) {
    return _mm512_add_ps(_mm512_shuffle_f32x4(x, y, 0x88), _mm512_shuffle_f32x4(x, y, 0xdd));
  };
  const __m512d p = _mm512_castps_pd(halves(v[0], v[1]));
  const __m512d q = _mm512_castps_pd(halves(v[2], v[3]));
  const __m512 two = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(p, q)),
                                   _mm512_castpd_ps(_mm512_unpackhi_pd(p, q)));
  const __m512 sums =
      _mm512_add_ps(_mm512_shuffle_ps(two, two, 0x88), _mm512_shuffle_ps(two, two, 0xdd));
  const __m512i order = _mm512_setr_epi32(0, 8, 1, 9, 4, 12, 5, 13, 0, 0, 0, 0, 0, 0, 0, 0);
  const __m256 both = _mm512_castps512_ps256(_mm512_permutexvar_ps(order, sums));
  return {_mm256_castps256_ps128(both), _mm256_extractf128_ps(both, 1)};
}

// 2 * kPairs heads against 4 * kFours rows, of which the first `count` are there.
template <int kPairs, int kFours>
void ScoreRows(const float* q, int64_t dim, const float* rows, int64_t count, float scale, float* z,
               int64_t ldz) {
  constexpr int kRows = 4 * kFours;
  const float* row[kRows];
  for (int r = 0; r < kRows; ++r) row[r] = rows + Smaller(r, count - 1) * dim;
  __m512 acc[kPairs][kFours][4];
  Unrolled<kPairs * kRows>([&](auto i) __attribute__((always_inline)) {
    acc[i / kRows][i % kRows / 4][i % 4] = _mm512_setzero_ps();
  });
  for (int64_t e = 0; e < dim; e += 8, q += kPairs * 16) {
    __m512 heads[kPairs];
    Unrolled<kPairs>([&](auto p) __attribute__((always_inline)) {
      heads[p] = _mm512_loadu_ps(q + p * 16);
    });
    Unrolled<kRows>([&](auto r) __attribute__((always_inline)) {
      const __m512 v = _mm512_broadcast_f32x8(_mm256_loadu_ps(row[r] + e));
      Unrolled<kPairs>([&](auto p) __attribute__((always_inline)) {
        __m512& sum = acc[p][r / 4][r % 4];
        sum = _mm512_fmadd_ps(heads[p], v, sum);
      });
    });
  }
  const __m128 scales = _mm_set1_ps(scale);
  for (int four = 0; four < kFours; ++four) {
    const int64_t left = Smaller(count - four * 4, 4);
    if (left <= 0) break;
    const auto there = static_cast<__mmask8>((1 << left) - 1);
    for (int p = 0; p < kPairs; ++p) {
      const FourRows sums = AddLanesOfFour(acc[p][four]);
      float* to = z + 2 * p * ldz + four * 4;
      _mm_mask_storeu_ps(to, there, _mm_mul_ps(sums.first, scales));
      _mm_mask_storeu_ps(to + ldz, there, _mm_mul_ps(sums.second, scales));
    }
  }
}

// 16 sums in flight.
template <int kPairs, int kFours>
void ScoreAll(const float* q, int64_t dim, const float* rows, int64_t count, float scale, float* z,
              int64_t ldz) {
  constexpr int64_t kRows = 4 * kFours;
  for (int64_t j = 0; j < count; j += kRows) {
    ScoreRows<kPairs, kFours>(q, dim, rows + j * dim, count - j, scale, z + j, ldz);
  }
}

void Scores(const float* q, int64_t heads, int64_t dim, const float* rows, int64_t count,
            float scale, float* z, int64_t ldz) {
  (heads == 8 ? ScoreAll<4, 1> : ScoreAll<2, 2>)(q, dim, rows, count, scale, z, ldz);
}

template <int kRows>
void AddRows(const float* p, int64_t ldp, int64_t dim, const float* rows, float* out) {
  __m512 weight[4][kRows];
  Unrolled<4 * kRows>([&](auto i) __attribute__((always_inline)) {
    weight[i / kRows][i % kRows] = _mm512_set1_ps(p[i / kRows * ldp + i % kRows]);
  });
  for (int64_t e = 0; e < dim; e += 16) {
    __m512 acc[4];
    Unrolled<4>([&](auto h) __attribute__((always_inline)) {
      acc[h] = _mm512_loadu_ps(out + h * dim + e);
    });
    Unrolled<kRows>([&](auto r) __attribute__((always_inline)) {
      const __m512 row = _mm512_loadu_ps(rows + r * dim + e);
      Unrolled<4>([&](auto h) __attribute__((always_inline)) {
        acc[h] = _mm512_fmadd_ps(weight[h][r], row, acc[h]);
      });
    });
    Unrolled<4>([&](auto h) __attribute__((always_inline)) {
      _mm512_storeu_ps(out + h * dim + e, acc[h]);
    });
  }
}

void Add(const float* p, int64_t ldp, int64_t heads, int64_t dim, const float* rows, int64_t count,
         float* out) {
  int64_t j = 0;
  const auto add = [&](auto run) __attribute__((always_inline)) {
    for (int64_t h = 0; h < heads; h += 4) {
      run(p + h * ldp + j, ldp, dim, rows + j * dim, out + h * dim);
    }
  };
  for (; j + 4 <= count; j += 4) add(AddRows<4>);
  for (; j < count; ++j) add(AddRows<1>);
}

// As with AVX2: a code becomes a half of 2^-8 of its value.
void DecodeFp8(const uint8_t* codes, int64_t groups, const float* scales, float* x) {
  const __m256i mask = _mm256_set1_epi16(static_cast<short>(0xbf80));
  for (int64_t g = 0; g < groups; ++g) {
    const __m512 scale = _mm512_set1_ps(scales[g] * 256.0f);
    for (int64_t i = g * 64; i < g * 64 + 64; i += 16) {
      const __m256i bytes =
          _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + i)));
      const __m256i half =
          _mm256_and_si256(_mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 1), mask);
      _mm512_storeu_ps(x + i, _mm512_mul_ps(_mm512_cvtph_ps(half), scale));
    }
  }
}

}  // namespace

RowLoops Avx512RowLoops() { return {4, 8, 16, Scores, Add, DecodeFp8}; }

}  // namespace cairn::kernels
