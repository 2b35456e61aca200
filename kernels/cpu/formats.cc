#include "kernels/cpu/formats.h"

#include <immintrin.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "kernels/cpu/nibbles.h"
#include "kernels/cpu/rounding.h"

namespace cairn::kernels {
namespace {

std::array<float, 256> MakeE4m3Table() {
  std::array<float, 256> table{};
  for (int v = 0; v < 256; ++v) {
    const int exponent = (v >> 3) & 15;
    const int mantissa = v & 7;
    float value = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                                : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
    if ((v & 0x7f) == 0x7f) value = std::nanf("");
    table[static_cast<size_t>(v)] = (v & 0x80) != 0 ? -value : value;
  }
  return table;
}

const std::array<float, 256> kE4m3 = MakeE4m3Table();
constexpr std::array<float, 16> kE2m1 = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                                         -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};

// 2^ceil(log2(t)) as an e8m0 byte: the exponent field, one more if any mantissa bit is set.
uint8_t CeilLog2Byte(float t) {
  const uint32_t bits = std::bit_cast<uint32_t>(t);
  return static_cast<uint8_t>(((bits >> 23) & 0xffu) + ((bits & 0x7fffffu) != 0 ? 1u : 0u));
}

// Each group of x, divided by its scale, rounded, and multiplied by its scale again. Dividing by a
// power of two is multiplying by its inverse, exactly.
template <typename ScaleByte, typename Round>
void SimulateGroups(std::span<float> x, int64_t group, ScaleByte scale_byte, Round round) {
  float* const end = x.data() + x.size();
  for (float* part = x.data(); part != end; part += group) {
    const float scale = E8m0ToF32(scale_byte(MaxMagnitude(part, group)));
    const __m256 up = _mm256_set1_ps(scale);
    const __m256 down = _mm256_set1_ps(1.0f / scale);
    for (int64_t i = 0; i < group; i += 8) {
      const __m256 v = _mm256_mul_ps(_mm256_loadu_ps(part + i), down);
      _mm256_storeu_ps(part + i, _mm256_mul_ps(round(v), up));
    }
  }
}

}  // namespace

float E4m3ToF32(uint8_t v) { return kE4m3[v]; }

uint8_t F32ToE4m3(float v) {
  const uint8_t sign = std::signbit(v) ? 0x80 : 0;
  const float a = std::min(std::fabs(v), 448.0f);
  if (a < 0x1p-6f) {  // subnormal: multiples of 2^-9; 8 of them is the first normal number
    return static_cast<uint8_t>(sign | static_cast<uint8_t>(std::nearbyint(a * 0x1p9f)));
  }
  // Round the 23-bit mantissa to 3 bits, ties to even; a carry moves into the exponent, as it
  // should.
  uint32_t bits = std::bit_cast<uint32_t>(a);
  bits += 0x7ffffu + ((bits >> 20) & 1u);
  const uint32_t rebased = (bits >> 20) - ((127u - 7u) << 3);
  return static_cast<uint8_t>(sign | std::min(rebased, 0x7eu));
}

float E2m1ToF32(uint8_t nibble) { return kE2m1[nibble & 15]; }

uint8_t F32ToE2m1(float v) {
  const uint8_t sign = std::signbit(v) ? 8 : 0;
  const float a = std::fabs(v);
  // Midpoints go to the even code.
  uint8_t code = 7;
  if (a <= 0.25f) {
    code = 0;
  } else if (a < 0.75f) {
    code = 1;
  } else if (a <= 1.25f) {
    code = 2;
  } else if (a < 1.75f) {
    code = 3;
  } else if (a <= 2.5f) {
    code = 4;
  } else if (a < 3.5f) {
    code = 5;
  } else if (a <= 5.0f) {
    code = 6;
  }
  return sign | code;
}

uint8_t ScaleE8m0Fp8(float amax) { return CeilLog2Byte(std::max(amax, 1e-4f) * (1.0f / 448.0f)); }

uint8_t ScaleE8m0Fp4(float amax) {
  return CeilLog2Byte(std::max(amax, 6.0f * 0x1p-126f) * (1.0f / 6.0f));
}

void SimulateFp8(std::span<float> x, int group) {
  SimulateGroups(x, group, ScaleE8m0Fp8, RoundE4m3);
}

void SimulateFp4(std::span<float> x, int group) {
  SimulateGroups(x, group, ScaleE8m0Fp4, [](__m256 v) { return NibbleValues(E2m1Codes(v)); });
}

}  // namespace cairn::kernels
