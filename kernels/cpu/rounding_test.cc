// Eight roundings at once against one rounding at a time (formats.h, itself tested against the
// definitions), to the bit: around every code and midpoint, both signs, every magnitude of float.
#include "kernels/cpu/rounding.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/cpu/formats.h"
#include "kernels/cpu/kv_rows.h"

namespace cairn::kernels {
namespace {

uint32_t Bits(float v) { return std::bit_cast<uint32_t>(v); }

// A multiple of 8 values: what is asked for, its neighbours, its negatives, zeros at the end.
std::vector<float> Around(const std::vector<float>& values) {
  std::vector<float> out;
  for (const float v : values) {
    for (const float near : {v, std::nextafter(v, 0.0f), std::nextafter(v, HUGE_VALF)}) {
      out.push_back(near);
      out.push_back(-near);
    }
  }
  while (out.size() % 8 != 0) out.push_back(0.0f);
  return out;
}

std::vector<float> AnyFinite(size_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<float> out;
  while (out.size() < n) {
    const float v = std::bit_cast<float>(static_cast<uint32_t>(random()));
    if (std::isfinite(v)) out.push_back(v);
  }
  return out;
}

void ExpectE4m3AsOneByOne(const std::vector<float>& x) {
  for (size_t i = 0; i < x.size(); i += 8) {
    float values[8];
    _mm256_storeu_ps(values, RoundE4m3(_mm256_loadu_ps(x.data() + i)));
    const uint64_t codes = E4m3Codes(_mm256_loadu_ps(x.data() + i));
    for (size_t l = 0; l < 8; ++l) {
      const uint8_t expected = F32ToE4m3(x[i + l]);
      ASSERT_EQ(static_cast<uint8_t>(codes >> (8 * l)), expected) << x[i + l];
      ASSERT_EQ(Bits(values[l]), Bits(E4m3ToF32(expected))) << x[i + l];
    }
  }
}

TEST(Rounding, E4m3AroundCodesAndMidpoints) {
  std::vector<float> probes = {0.0f, 1e-12f, 449.0f, 460.0f, 480.0f, 1e9f, 3e38f};
  for (int c = 0; c < 0x7e; ++c) {
    const float a = E4m3ToF32(static_cast<uint8_t>(c));
    const float b = E4m3ToF32(static_cast<uint8_t>(c + 1));
    probes.insert(probes.end(), {a, b, (a + b) / 2});
  }
  ExpectE4m3AsOneByOne(Around(probes));
}

TEST(Rounding, E4m3OfAnyFloat) { ExpectE4m3AsOneByOne(AnyFinite(1 << 16, 1)); }

void ExpectE2m1AsOneByOne(const std::vector<float>& x) {
  for (size_t i = 0; i < x.size(); i += 8) {
    const __m256i codes = E2m1Codes(_mm256_loadu_ps(x.data() + i));
    const uint32_t packed = PackNibbles(codes);
    int32_t lanes[8];
    std::memcpy(lanes, &codes, sizeof(lanes));
    for (size_t l = 0; l < 8; ++l) {
      const int expected = F32ToE2m1(x[i + l]);
      ASSERT_EQ(lanes[l], expected) << x[i + l];
      ASSERT_EQ(static_cast<int>(packed >> (4 * l) & 15), expected) << x[i + l];
    }
  }
}

TEST(Rounding, E2m1AroundCodesAndMidpoints) {
  ExpectE2m1AsOneByOne(Around({0.0f, 0.25f, 0.5f, 0.75f, 1.0f, 1.25f, 1.5f, 1.75f, 2.0f, 2.5f, 3.0f,
                               3.5f, 4.0f, 5.0f, 6.0f, 7.0f, 1e30f}));
}

TEST(Rounding, E2m1OfAnyFloat) { ExpectE2m1AsOneByOne(AnyFinite(1 << 14, 2)); }

TEST(Rounding, MaxMagnitudeLooksAtEveryLane) {
  for (size_t at = 0; at < 64; ++at) {
    std::vector<float> x(64, 0.5f);
    x[at] = at % 2 == 0 ? -3.0f : 3.0f;
    EXPECT_EQ(MaxMagnitude(x.data(), 64), 3.0f);
  }
}

// Groups whose values lie anywhere from far below to the largest, tiny groups included: the bytes
// of a stored row are those of one value at a time.
TEST(Rounding, StoredRowsAndSimulationsAreThoseOfOneByOne) {
  std::mt19937 random(3);
  std::uniform_real_distribution<float> exponent(-40.0f, 20.0f);
  std::normal_distribution<float> normal(0.0f, 1.0f);
  for (int trial = 0; trial < 200; ++trial) {
    std::vector<float> x(512);
    const float size = trial % 2 == 0 ? 0.0f : exponent(random);
    for (float& v : x) v = normal(random) * std::exp2(trial % 4 < 2 ? size : exponent(random));
    const RowCodec row(RowEncoding::kFp8Bf16, 512, 64);
    std::vector<uint8_t> data(static_cast<size_t>(row.data_bytes()));
    std::vector<uint8_t> scales(static_cast<size_t>(row.scale_bytes()));
    row.Encode(x.data(), data.data(), scales.data());
    std::vector<float> fp8 = x;
    SimulateFp8(fp8, 64);
    for (size_t i = 0; i < 448; ++i) {
      const float scale = E8m0ToF32(scales[i / 64]);
      ASSERT_EQ(data[i], F32ToE4m3(x[i] / scale)) << i;
      ASSERT_EQ(Bits(fp8[i]), Bits(E4m3ToF32(data[i]) * scale)) << i;
    }
    const RowCodec index(RowEncoding::kFp4, 512, 64);
    data.resize(static_cast<size_t>(index.data_bytes()));
    scales.resize(static_cast<size_t>(index.scale_bytes()));
    index.Encode(x.data(), data.data(), scales.data());
    std::vector<float> fp4 = x;
    SimulateFp4(fp4, 32);
    for (size_t i = 0; i < x.size(); ++i) {
      const float scale = E8m0ToF32(scales[i / 32]);
      const int code = i % 2 == 0 ? data[i / 2] & 15 : data[i / 2] >> 4;
      ASSERT_EQ(code, F32ToE2m1(x[i] / scale)) << i;
      ASSERT_EQ(Bits(fp4[i]), Bits(E2m1ToF32(static_cast<uint8_t>(code)) * scale)) << i;
    }
  }
}

}  // namespace
}  // namespace cairn::kernels
