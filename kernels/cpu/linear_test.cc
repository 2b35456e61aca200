// Packing and matrix multiplication against the definition in linear.h, to the bit: every format,
// odd shapes, any number of rows together, any number of threads.
#include "kernels/cpu/linear.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <tuple>
#include <vector>

#include "kernels/cpu/formats.h"

namespace cairn::kernels {
namespace {

struct Stored {
  std::vector<uint8_t> values;
  std::vector<uint8_t> scales;
  RawMatrix raw;
};

Stored MakeStored(WeightFormat format, int64_t rows, int64_t k, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, 1.0f);
  Stored s;
  const auto put = [&s](const void* p, size_t n) {
    const auto* bytes = static_cast<const uint8_t*>(p);
    s.values.insert(s.values.end(), bytes, bytes + n);
  };
  for (int64_t i = 0; i < rows * k; ++i) {
    const float v = normal(random);
    if (format == WeightFormat::kF32) put(&v, 4);
    if (format == WeightFormat::kBf16) {
      const uint16_t b = F32ToBf16(v);
      put(&b, 2);
    }
    if (format == WeightFormat::kFp8) s.values.push_back(F32ToE4m3(v * 100));
    if (format == WeightFormat::kFp4 && i % 2 == 0)
      s.values.push_back(static_cast<uint8_t>(random()));
  }
  size_t scales = 0;
  if (format == WeightFormat::kFp8)
    scales = static_cast<size_t>(((rows + 127) / 128) * ((k + 127) / 128));
  if (format == WeightFormat::kFp4) scales = static_cast<size_t>(rows * (k / 32));
  for (size_t i = 0; i < scales; ++i) s.scales.push_back(static_cast<uint8_t>(110 + random() % 20));
  s.raw = {format, rows, k, s.values.data(), s.scales.data()};
  return s;
}

std::vector<float> RandomRows(int64_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, 1.0f);
  std::vector<float> x(static_cast<size_t>(n));
  for (float& v : x) v = normal(random);
  return x;
}

float Defined(const RawMatrix& raw, int64_t row, const float* x) {
  float sum = 0.0f;
  if (raw.format != WeightFormat::kFp4) {
    for (int64_t k = 0; k < raw.k; ++k) sum = std::fma(x[k], RawValue(raw, row, k), sum);
    return sum;
  }
  for (int64_t group = 0; group < raw.k; group += 32) {
    const float scale = E8m0ToF32(raw.scales[(row * raw.k + group) / 32]);
    float part = 0.0f;
    for (int64_t k = group; k < group + 32; ++k) {
      part = std::fma(x[k], RawValue(raw, row, k) / scale, part);
    }
    sum = std::fma(part, scale, sum);
  }
  return sum;
}

uint32_t Bits(float v) {
  uint32_t bits;
  std::memcpy(&bits, &v, sizeof(bits));
  return bits;
}

class LinearFormats : public testing::TestWithParam<std::tuple<WeightFormat, int64_t, int64_t>> {};

TEST_P(LinearFormats, EqualsTheDefinitionToTheBit) {
  const auto [format, n, k] = GetParam();
  const Stored stored = MakeStored(format, n, k, 7);
  const PackedMatrix packed(stored.raw, 0, n);
  const int64_t m = 13;
  const std::vector<float> x = RandomRows(m * k, 8);
  ThreadPool pool(3);
  std::vector<float> y(static_cast<size_t>(m * n), -1.0f);
  Linear(pool, packed, x.data(), k, m, y.data(), n);
  for (int64_t r = 0; r < m; ++r) {
    for (int64_t i = 0; i < n; ++i) {
      ASSERT_EQ(Bits(y[static_cast<size_t>(r * n + i)]),
                Bits(Defined(stored.raw, i, x.data() + r * k)))
          << r << ' ' << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, LinearFormats,
                         testing::Combine(testing::Values(WeightFormat::kF32, WeightFormat::kBf16,
                                                          WeightFormat::kFp8, WeightFormat::kFp4),
                                          testing::Values<int64_t>(1, 16, 24, 130),
                                          testing::Values<int64_t>(32, 96, 160, 384)));

TEST(Linear, OddWidths) {
  for (const WeightFormat format : {WeightFormat::kBf16, WeightFormat::kFp8}) {
    for (const int64_t k : {1, 7, 129, 257}) {
      const Stored stored = MakeStored(format, 5, k, 9);
      const PackedMatrix packed(stored.raw, 0, 5);
      const int64_t m = 60;
      const std::vector<float> x = RandomRows(m * k, 10);
      ThreadPool pool(1);
      std::vector<float> y(static_cast<size_t>(m * 5));
      for (const int64_t rows : {int64_t{1}, m}) {
        Linear(pool, packed, x.data(), k, rows, y.data(), 5);
        for (int64_t i = 0; i < rows * 5; ++i) {
          ASSERT_EQ(Bits(y[static_cast<size_t>(i)]),
                    Bits(Defined(stored.raw, i % 5, x.data() + i / 5 * k)))
              << k << ' ' << rows << ' ' << i;
        }
      }
    }
  }
}

TEST(Linear, ScalesBeyondWhatDecodingTakes) {
  Stored stored = MakeStored(WeightFormat::kFp8, 16, 256, 9);
  stored.scales = {134, 135};  // 2^7 fits, 2^8 does not
  stored.raw.scales = stored.scales.data();
  const PackedMatrix packed(stored.raw, 0, 16);
  EXPECT_EQ(packed.format(), WeightFormat::kF32);
  const std::vector<float> x = RandomRows(256, 10);
  ThreadPool pool(1);
  float y[16];
  Linear(pool, packed, x.data(), 256, 1, y, 16);
  for (int64_t i = 0; i < 16; ++i) EXPECT_EQ(Bits(y[i]), Bits(Defined(stored.raw, i, x.data())));
}

TEST(Linear, RowSliceKeepsItsScales) {
  // Rows 64..191 of an FP8 matrix straddle two scale blocks.
  const Stored stored = MakeStored(WeightFormat::kFp8, 256, 128, 11);
  const PackedMatrix packed(stored.raw, 64, 128);
  const std::vector<float> x = RandomRows(128, 12);
  ThreadPool pool(1);
  std::vector<float> y(128);
  Linear(pool, packed, x.data(), 128, 1, y.data(), 128);
  for (int64_t i = 0; i < 128; ++i) {
    EXPECT_EQ(Bits(y[static_cast<size_t>(i)]), Bits(Defined(stored.raw, 64 + i, x.data())));
  }
}

class LinearCompany : public testing::TestWithParam<WeightFormat> {};

// Counts of rows on both sides of every change of method, and several slabs of k.
TEST_P(LinearCompany, RowsAreIndependentOfCompanyAndThreads) {
  const int64_t n = 200;
  const int64_t k = 544;
  const int64_t m = 500;
  const Stored stored = MakeStored(GetParam(), n, k, 13);
  const PackedMatrix packed(stored.raw, 0, n);
  const std::vector<float> x = RandomRows(m * k, 14);
  std::vector<float> all(static_cast<size_t>(m * n));
  ThreadPool many(4);
  Linear(many, packed, x.data(), k, m, all.data(), n);
  ThreadPool one(1);
  for (const int64_t chunk : {1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 16, 47, 48, 49, 128, 193, 499}) {
    std::vector<float> y(all.size());
    for (int64_t r = 0; r < m; r += chunk) {
      Linear(one, packed, x.data() + r * k, k, std::min(chunk, m - r), y.data() + r * n, n);
    }
    EXPECT_EQ(std::memcmp(y.data(), all.data(), y.size() * sizeof(float)), 0) << chunk;
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, LinearCompany,
                         testing::Values(WeightFormat::kF32, WeightFormat::kBf16,
                                         WeightFormat::kFp8, WeightFormat::kFp4));

}  // namespace
}  // namespace cairn::kernels
