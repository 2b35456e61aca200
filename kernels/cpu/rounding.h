// rounding.h: eight values at once to the codes of e4m3 and e2m1, for the files that quantise. The
// same bits as F32ToE4m3 and F32ToE2m1 (formats.h) give one by one.
//
// Threads: pure functions. NaN is the caller's error.
#ifndef CAIRN_KERNELS_CPU_ROUNDING_H_
#define CAIRN_KERNELS_CPU_ROUNDING_H_

#include <immintrin.h>

#include <cstdint>

namespace cairn::kernels {

inline __m256 SignBits(__m256 x) { return _mm256_and_ps(x, _mm256_set1_ps(-0.0f)); }
inline __m256 Magnitude(__m256 x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x); }

// The largest magnitude of n values; n is a multiple of 8.
inline float MaxMagnitude(const float* x, int64_t n) {
  __m256 most = _mm256_setzero_ps();
  for (int64_t i = 0; i < n; i += 8) most = _mm256_max_ps(most, Magnitude(_mm256_loadu_ps(x + i)));
  __m128 four = _mm_max_ps(_mm256_castps256_ps128(most), _mm256_extractf128_ps(most, 1));
  four = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(four, _mm_shuffle_ps(four, four, 1)));
}

// x rounded to e4m3, as its magnitude: normal numbers keep 3 bits of mantissa, below 2^-6 there are
// the multiples of 2^-9.
inline __m256 E4m3Magnitude(__m256 x) {
  const __m256 a = _mm256_min_ps(Magnitude(x), _mm256_set1_ps(448.0f));
  const __m256i bits = _mm256_castps_si256(a);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 20), _mm256_set1_epi32(1));
  const __m256i up = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7ffff)));
  const __m256 normal = _mm256_castsi256_ps(_mm256_and_si256(up, _mm256_set1_epi32(~0xfffff)));
  const __m256 steps = _mm256_round_ps(_mm256_mul_ps(a, _mm256_set1_ps(0x1p9f)),
                                       _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m256 subnormal = _mm256_mul_ps(steps, _mm256_set1_ps(0x1p-9f));
  const __m256 small = _mm256_cmp_ps(a, _mm256_set1_ps(0x1p-6f), _CMP_LT_OQ);
  return _mm256_blendv_ps(normal, subnormal, small);
}

// The value that the code means.
inline __m256 RoundE4m3(__m256 x) { return _mm256_or_ps(E4m3Magnitude(x), SignBits(x)); }

// One code a byte.
inline uint64_t E4m3Codes(__m256 x) {
  const __m256 a = E4m3Magnitude(x);
  const __m256i normal = _mm256_sub_epi32(_mm256_srli_epi32(_mm256_castps_si256(a), 20),
                                          _mm256_set1_epi32((127 - 7) << 3));
  const __m256i subnormal = _mm256_cvtps_epi32(_mm256_mul_ps(a, _mm256_set1_ps(0x1p9f)));
  const __m256 small = _mm256_cmp_ps(a, _mm256_set1_ps(0x1p-6f), _CMP_LT_OQ);
  const __m256i code = _mm256_castps_si256(
      _mm256_blendv_ps(_mm256_castsi256_ps(normal), _mm256_castsi256_ps(subnormal), small));
  const __m256i sign = _mm256_srli_epi32(_mm256_castps_si256(SignBits(x)), 24);
  const __m256i both = _mm256_or_si256(code, sign);
  const __m128i words =
      _mm_packus_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
  return static_cast<uint64_t>(_mm_cvtsi128_si64(_mm_packus_epi16(words, words)));
}

// One code a lane. A code is the number of midpoints below x; a midpoint itself goes to the even
// code.
inline __m256i E2m1Codes(__m256 x) {
  const __m256 a = Magnitude(x);
  const auto above = [a](float middle) {
    return _mm256_castps_si256(_mm256_cmp_ps(a, _mm256_set1_ps(middle), _CMP_GT_OQ));
  };
  const auto from = [a](float middle) {
    return _mm256_castps_si256(_mm256_cmp_ps(a, _mm256_set1_ps(middle), _CMP_GE_OQ));
  };
  // A comparison that holds is -1.
  __m256i code = _mm256_add_epi32(above(0.25f), from(0.75f));
  code = _mm256_add_epi32(code, _mm256_add_epi32(above(1.25f), from(1.75f)));
  code = _mm256_add_epi32(code, _mm256_add_epi32(above(2.5f), from(3.5f)));
  code = _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_add_epi32(code, above(5.0f)));
  const __m256i sign = _mm256_srli_epi32(_mm256_castps_si256(SignBits(x)), 28);
  return _mm256_or_si256(code, sign);
}

// Eight such codes, two a byte, low nibble first.
inline uint32_t PackNibbles(__m256i codes) {
  // A pair of lanes is 64 bits; the odd code comes down beside the even one.
  const __m256i pairs = _mm256_or_si256(codes, _mm256_srli_epi64(codes, 28));
  const uint32_t low = static_cast<uint32_t>(_mm256_extract_epi8(pairs, 0)) |
                       static_cast<uint32_t>(_mm256_extract_epi8(pairs, 8)) << 8;
  const uint32_t high = static_cast<uint32_t>(_mm256_extract_epi8(pairs, 16)) |
                        static_cast<uint32_t>(_mm256_extract_epi8(pairs, 24)) << 8;
  return low | high << 16;
}

}  // namespace cairn::kernels

#endif  // CAIRN_KERNELS_CPU_ROUNDING_H_
