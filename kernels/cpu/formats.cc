#include "kernels/cpu/formats.h"

#include <algorithm>
#include <array>
#include <cmath>

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

float GroupAmax(std::span<const float> x) {
  float amax = 0.0f;
  for (const float v : x) amax = std::max(amax, std::fabs(v));
  return amax;
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
  const size_t n = static_cast<size_t>(group);
  for (size_t g = 0; g < x.size(); g += n) {
    const std::span<float> part = x.subspan(g, n);
    const float scale = E8m0ToF32(ScaleE8m0Fp8(GroupAmax(part)));
    const float inverse = 1.0f / scale;  // a power of two: exact
    for (float& v : part) v = E4m3ToF32(F32ToE4m3(v * inverse)) * scale;
  }
}

void SimulateFp4(std::span<float> x, int group) {
  const size_t n = static_cast<size_t>(group);
  for (size_t g = 0; g < x.size(); g += n) {
    const std::span<float> part = x.subspan(g, n);
    const float scale = E8m0ToF32(ScaleE8m0Fp4(GroupAmax(part)));
    for (float& v : part) v = E2m1ToF32(F32ToE2m1(v / scale)) * scale;
  }
}

}  // namespace cairn::kernels
