// nibbles.h: eight e2m1 codes to F32 at once, for the files that unpack FP4.
//
// Threads: pure function.
#ifndef CAIRN_KERNELS_CPU_NIBBLES_H_
#define CAIRN_KERNELS_CPU_NIBBLES_H_

#include <immintrin.h>

namespace cairn::kernels {

// One code in the low 4 bits of each lane; the other bits are zero. The eight magnitudes fit one
// permute, which reads the low 3 bits; bit 3 is the sign.
inline __m256 NibbleValues(__m256i nibbles) {
  const __m256 magnitudes = _mm256_setr_ps(0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f);
  const __m256 value = _mm256_permutevar8x32_ps(magnitudes, nibbles);
  const __m256i sign = _mm256_slli_epi32(_mm256_and_si256(nibbles, _mm256_set1_epi32(8)), 28);
  return _mm256_xor_ps(value, _mm256_castsi256_ps(sign));
}

}  // namespace cairn::kernels

#endif  // CAIRN_KERNELS_CPU_NIBBLES_H_
