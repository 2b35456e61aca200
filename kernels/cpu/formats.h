// formats.h: the small number formats of DeepSeek-V4 and the exact rounding steps between them.
//
//   e4m3   FP8 E4M3FN: no infinities, 0x7f/0xff NaN, max 448
//   e2m1   FP4: {0,.5,1,1.5,2,3,4,6} and negatives; bit 3 is the sign
//   e8m0   a scale: byte e means 2^(e-127)
//   bf16   upper half of an F32, round to nearest even
//
// Source: spec section 3.1 (the reference's kernel.py). All casts round to nearest, ties to even,
// and saturate. Threads: pure functions. NaN inputs are the caller's error (weights are checked at
// load).
#ifndef CAIRN_KERNELS_CPU_FORMATS_H_
#define CAIRN_KERNELS_CPU_FORMATS_H_

#include <bit>
#include <cstdint>
#include <span>

namespace cairn::kernels {

inline float Bf16ToF32(uint16_t v) { return std::bit_cast<float>(static_cast<uint32_t>(v) << 16); }

inline uint16_t F32ToBf16(float v) {
  const uint32_t bits = std::bit_cast<uint32_t>(v);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

float E4m3ToF32(uint8_t v);
uint8_t F32ToE4m3(float v);  // saturates to +-448

// Values 0..15.
float E2m1ToF32(uint8_t nibble);
uint8_t F32ToE2m1(float v);  // saturates to +-6

inline float E8m0ToF32(uint8_t e) {
  // 2^(e-127); e == 0 is the subnormal 2^-127.
  return std::bit_cast<float>(e == 0 ? 0x00400000u : static_cast<uint32_t>(e) << 23);
}

// The scale byte of a group: 2^ceil(log2(max(amax, floor) / value_max)), by exponent bits as the
// reference does: t = max(amax, floor) * (1 / value_max) in F32; exponent field of t, plus one if
// its mantissa is not zero.
uint8_t ScaleE8m0Fp8(float amax);  // floor 1e-4, value_max 448
uint8_t ScaleE8m0Fp4(float amax);  // floor 6 * 2^-126, value_max 6

// In place: each group of `group` values becomes value(quantise(x / scale)) * scale. REQUIRES: size
// is a multiple of group, group of 8.
void SimulateFp8(std::span<float> x, int group);
void SimulateFp4(std::span<float> x, int group);

}  // namespace cairn::kernels

#endif  // CAIRN_KERNELS_CPU_FORMATS_H_
