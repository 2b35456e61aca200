// Number formats, against their definitions: every code, every midpoint between neighbours, and the
// scale rule in double.
#include "kernels/cpu/formats.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "kernels/cpu/kv_rows.h"

namespace cairn::kernels {
namespace {

// Nearest code by exhaustive search; of two equally near ones the even code.
template <typename Decode>
uint8_t NearestCode(double v, int codes, Decode decode) {
  int best = 0;
  double best_distance = HUGE_VAL;
  for (int c = 0; c < codes; ++c) {
    const double d = std::fabs(std::fabs(v) - static_cast<double>(decode(static_cast<uint8_t>(c))));
    if (d < best_distance || (d == best_distance && c % 2 == 0)) {
      best = c;
      best_distance = d;
    }
  }
  return static_cast<uint8_t>(best);
}

TEST(E4m3, KnownValues) {
  EXPECT_EQ(E4m3ToF32(0x00), 0.0f);
  EXPECT_EQ(E4m3ToF32(0x01), 0x1p-9f);
  EXPECT_EQ(E4m3ToF32(0x08), 0x1p-6f);
  EXPECT_EQ(E4m3ToF32(0x38), 1.0f);
  EXPECT_EQ(E4m3ToF32(0x7e), 448.0f);
  EXPECT_EQ(E4m3ToF32(0xfe), -448.0f);
  EXPECT_TRUE(std::isnan(E4m3ToF32(0x7f)));
  EXPECT_TRUE(std::isnan(E4m3ToF32(0xff)));
}

TEST(E4m3, EveryCodeSurvives) {
  for (int c = 0; c < 256; ++c) {
    if ((c & 0x7f) == 0x7f) continue;
    EXPECT_EQ(F32ToE4m3(E4m3ToF32(static_cast<uint8_t>(c))), c);
  }
}

TEST(E4m3, RoundsToNearestTiesToEven) {
  std::vector<float> probes = {0.0f, 1e-12f, 447.0f, 448.0f, 460.0f, 1e9f};
  for (int c = 0; c < 0x7e; ++c) {
    const float a = E4m3ToF32(static_cast<uint8_t>(c));
    const float b = E4m3ToF32(static_cast<uint8_t>(c + 1));
    const float middle = (a + b) / 2;
    probes.insert(probes.end(),
                  {middle, std::nextafter(middle, 0.0f), std::nextafter(middle, 1e9f)});
  }
  for (const float v : probes) {
    const uint8_t expected = NearestCode(v, 0x7f, E4m3ToF32);
    EXPECT_EQ(F32ToE4m3(v), expected) << v;
    EXPECT_EQ(F32ToE4m3(-v), expected | 0x80) << -v;
  }
}

TEST(E2m1, RoundsToNearestTiesToEven) {
  for (int i = 0; i <= 7000; ++i) {
    const float v = static_cast<float>(i) / 1000.0f;
    EXPECT_EQ(F32ToE2m1(v), NearestCode(v, 8, E2m1ToF32)) << v;
    EXPECT_EQ(F32ToE2m1(-v), NearestCode(v, 8, E2m1ToF32) | 8) << -v;
  }
}

TEST(E8m0, PowersOfTwo) {
  EXPECT_EQ(E8m0ToF32(127), 1.0f);
  EXPECT_EQ(E8m0ToF32(1), 0x1p-126f);
  EXPECT_EQ(E8m0ToF32(0), 0x1p-127f);
  EXPECT_EQ(E8m0ToF32(254), 0x1p127f);
}

TEST(Scale, IsTheSmallestPowerOfTwoThatFits) {
  std::mt19937 random(1);
  std::uniform_real_distribution<float> exponent(-20.0f, 20.0f);
  for (int i = 0; i < 20000; ++i) {
    const float amax = std::exp2(exponent(random));
    EXPECT_EQ(
        ScaleE8m0Fp8(amax),
        127 + static_cast<int>(std::ceil(std::log2(std::max(amax, 1e-4f) * (1.0f / 448.0f)))));
    EXPECT_EQ(ScaleE8m0Fp4(amax),
              127 + static_cast<int>(std::ceil(std::log2(amax * (1.0f / 6.0f)))));
  }
  EXPECT_EQ(ScaleE8m0Fp8(448.0f * 4), 129);
  EXPECT_EQ(ScaleE8m0Fp8(0.0f), ScaleE8m0Fp8(1e-4f));
  EXPECT_EQ(ScaleE8m0Fp4(0.0f), 1);
}

TEST(Simulate, MatchesTheDefinitionStepByStep) {
  std::mt19937 random(2);
  std::normal_distribution<float> normal(0.0f, 3.0f);
  std::vector<float> x(256);
  for (float& v : x) v = normal(random);
  x[0] = 0.0f;
  x[70] = 1e-7f;
  std::vector<float> fp8 = x;
  std::vector<float> fp4 = x;
  SimulateFp8(fp8, 128);
  SimulateFp4(fp4, 32);
  for (size_t i = 0; i < x.size(); ++i) {
    float amax8 = 0;
    float amax4 = 0;
    for (size_t j = i / 128 * 128; j < i / 128 * 128 + 128; ++j)
      amax8 = std::max(amax8, std::fabs(x[j]));
    for (size_t j = i / 32 * 32; j < i / 32 * 32 + 32; ++j)
      amax4 = std::max(amax4, std::fabs(x[j]));
    const float s8 = E8m0ToF32(ScaleE8m0Fp8(amax8));
    const float s4 = E8m0ToF32(ScaleE8m0Fp4(amax4));
    EXPECT_EQ(fp8[i], E4m3ToF32(F32ToE4m3(x[i] / s8)) * s8) << i;
    EXPECT_EQ(fp4[i], E2m1ToF32(F32ToE2m1(x[i] / s4)) * s4) << i;
  }
}

TEST(Simulate, Fp8CoversSubnormalsAndSaturation) {
  // One large value makes the group's scale large, so the others fall on subnormal codes and below.
  std::vector<float> x(128);
  for (size_t i = 0; i < x.size(); ++i)
    x[i] = std::ldexp(1.0f + static_cast<float>(i) / 128.0f, -static_cast<int>(i % 24));
  x[127] = -448.0f * 16;
  std::vector<float> y = x;
  SimulateFp8(y, 128);
  for (size_t i = 0; i < x.size(); ++i) EXPECT_EQ(y[i], E4m3ToF32(F32ToE4m3(x[i] / 16)) * 16) << i;
}

TEST(RowCodec, SizesOfTheReport) {
  const RowCodec row(RowEncoding::kFp8Bf16, 512, 64);
  EXPECT_EQ(row.data_bytes(), 576);
  EXPECT_EQ(row.row_bytes(), 584);
  const RowCodec index(RowEncoding::kFp4, 128, 64);
  EXPECT_EQ(index.row_bytes(), 68);
  EXPECT_EQ(RowCodec(RowEncoding::kF32, 512, 64).row_bytes(), 2048);
}

TEST(RowCodec, DecodeOfEncodeIsTheQuantisedValueAndStays) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0.0f, 2.0f);
  for (const RowEncoding encoding : {RowEncoding::kF32, RowEncoding::kFp8Bf16, RowEncoding::kFp4}) {
    for (const int64_t dim : {128, 512}) {
      const RowCodec codec(encoding, dim, 64);
      std::vector<float> x(static_cast<size_t>(dim));
      for (float& v : x) v = normal(random);
      std::vector<float> expected = x;
      if (encoding == RowEncoding::kFp8Bf16) {
        SimulateFp8({expected.data(), static_cast<size_t>(dim - 64)}, 64);
        for (size_t i = static_cast<size_t>(dim - 64); i < x.size(); ++i)
          expected[i] = Bf16ToF32(F32ToBf16(x[i]));
      } else if (encoding == RowEncoding::kFp4) {
        SimulateFp4(expected, 32);
      }
      std::vector<uint8_t> data(static_cast<size_t>(codec.data_bytes()));
      std::vector<uint8_t> scales(static_cast<size_t>(codec.scale_bytes()), 0xaa);
      std::vector<float> y(x.size());
      codec.Encode(x.data(), data.data(), scales.data());
      codec.Decode(data.data(), scales.data(), y.data());
      EXPECT_EQ(y, expected);
      // A stored row, decoded, packs into values that are the same again: nothing drifts on a
      // second trip.
      std::vector<uint8_t> data2(data.size());
      std::vector<uint8_t> scales2(scales.size());
      std::vector<float> z(x.size());
      codec.Encode(y.data(), data2.data(), scales2.data());
      codec.Decode(data2.data(), scales2.data(), z.data());
      EXPECT_EQ(z, y);
    }
  }
}

TEST(RowCodec, APanelHoldsTheRowsSideBySide) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0.0f, 1.0f);
  constexpr int64_t kDim = 128;
  for (const RowEncoding encoding :
       {RowEncoding::kF32, RowEncoding::kFp8Bf16, RowEncoding::kFp8F32, RowEncoding::kFp4}) {
    const RowCodec codec(encoding, kDim, 64);
    std::vector<std::vector<uint8_t>> stored;
    std::vector<const uint8_t*> data, scales;
    for (int row = 0; row < 16; ++row) {
      float x[kDim];
      for (float& v : x) v = normal(random) * static_cast<float>(row + 1);
      stored.emplace_back(static_cast<size_t>(codec.row_bytes()));
      codec.Encode(x, stored.back().data(), stored.back().data() + codec.data_bytes());
      data.push_back(stored.back().data());
      scales.push_back(stored.back().data() + codec.data_bytes());
    }
    for (const int64_t count : {1, 7, 8, 9, 16}) {
      std::vector<float> panel(kDim * 16, -1.0f);
      codec.DecodePanel(data.data(), scales.data(), count, panel.data());
      for (int64_t row = 0; row < 16; ++row) {
        float x[kDim] = {};
        if (row < count)
          codec.Decode(data[static_cast<size_t>(row)], scales[static_cast<size_t>(row)], x);
        for (int64_t e = 0; e < kDim; ++e) {
          ASSERT_EQ(panel[static_cast<size_t>(e * 16 + row)], x[e])
              << count << ' ' << row << ' ' << e;
        }
      }
    }
  }
}

}  // namespace
}  // namespace cairn::kernels
