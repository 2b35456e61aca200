// Packing and matrix multiplication against the definition in linear.h, to the bit: every format,
// odd shapes, any number of rows together, any number of threads, with whichever instructions.
#include "kernels/cpu/linear.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <tuple>
#include <vector>

#include "kernels/cpu/cpu_path.h"
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

// A test for each CpuPath, the first of its parameters.
template <typename... Others>
class OnPath : public testing::TestWithParam<std::tuple<CpuPath, Others...>> {
 protected:
  void SetUp() override { ChooseCpuPath(std::get<0>(this->GetParam())); }
  void TearDown() override { ChooseCpuPath(chosen_); }

 private:
  const CpuPath chosen_ = ChosenCpuPath();
};

std::vector<CpuPath> PathsHere() {
  std::vector<CpuPath> paths = {CpuPath::kAvx2};
  if (HasCpuPath(CpuPath::kAvx512)) paths.push_back(CpuPath::kAvx512);
  return paths;
}
const auto kPaths = testing::ValuesIn(PathsHere());
const auto kFormats = testing::Values(WeightFormat::kF32, WeightFormat::kBf16, WeightFormat::kFp8,
                                      WeightFormat::kFp4);

TEST(CpuPaths, TheWidestIsChosen) {
  if (!HasCpuPath(CpuPath::kAvx512)) {
    EXPECT_EQ(ChosenCpuPath(), CpuPath::kAvx2);
    GTEST_SKIP() << "this processor has no AVX-512: none of these tests ran with it";
  }
  EXPECT_EQ(ChosenCpuPath(), CpuPath::kAvx512);
}

using LinearFormats = OnPath<WeightFormat, int64_t, int64_t>;

TEST_P(LinearFormats, EqualsTheDefinitionToTheBit) {
  const auto [path, format, n, k] = GetParam();
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
                         testing::Combine(kPaths, kFormats,
                                          testing::Values<int64_t>(1, 16, 24, 130),
                                          testing::Values<int64_t>(32, 96, 160, 384)));

using Linears = OnPath<>;

TEST_P(Linears, OddWidths) {
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

TEST_P(Linears, ScalesBeyondWhatDecodingTakes) {
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

TEST_P(Linears, RowSliceKeepsItsScales) {
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

// Every code that is a number, subnormal ones included, at every place.
TEST_P(Linears, EveryFp8Code) {
  const int64_t k = 512;
  Stored stored = MakeStored(WeightFormat::kFp8, 16, k, 15);
  for (int64_t i = 0; i < 16 * k; ++i) {
    const auto code = static_cast<uint8_t>(i / k * 37 + i);
    stored.values[static_cast<size_t>(i)] = (code & 0x7f) == 0x7f ? 0x7e : code;
  }
  const PackedMatrix packed(stored.raw, 0, 16);
  const int64_t m = 30;
  const std::vector<float> x = RandomRows(m * k, 16);
  ThreadPool pool(1);
  std::vector<float> y(static_cast<size_t>(m * 16));
  for (const int64_t rows : {int64_t{1}, int64_t{5}, m}) {
    Linear(pool, packed, x.data(), k, rows, y.data(), 16);
    for (int64_t i = 0; i < rows * 16; ++i) {
      ASSERT_EQ(Bits(y[static_cast<size_t>(i)]),
                Bits(Defined(stored.raw, i % 16, x.data() + i / 16 * k)))
          << rows << ' ' << i;
    }
  }
}

TEST_P(Linears, PanelMultiplyContinuesItsSums) {
  const int64_t count = 70, ldx = 77, ldy = 19;
  const std::vector<float> panel = RandomRows(count * 16, 17);
  for (int64_t m = 1; m <= 40; ++m) {
    const std::vector<float> x = RandomRows(m * ldx, 18);
    const std::vector<float> before = RandomRows(m * ldy, 19);
    std::vector<float> y = before;
    PanelMultiply(panel.data(), count, x.data(), ldx, m, y.data(), ldy);
    for (int64_t i = 0; i < m * ldy; ++i) {
      float sum = before[static_cast<size_t>(i)];
      for (int64_t j = 0; j < count && i % ldy < 16; ++j) {
        sum = std::fma(x[static_cast<size_t>(i / ldy * ldx + j)],
                       panel[static_cast<size_t>(j * 16 + i % ldy)], sum);
      }
      ASSERT_EQ(Bits(y[static_cast<size_t>(i)]), Bits(sum)) << m << ' ' << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Paths, Linears, testing::Combine(kPaths));

using LinearCompany = OnPath<WeightFormat>;

// Every count of rows that a tile may have, both sides of every change of method, and several slabs
// of k.
TEST_P(LinearCompany, RowsAreIndependentOfCompanyAndThreads) {
  const int64_t n = 200;
  const int64_t k = 544;
  const int64_t m = 500;
  const Stored stored = MakeStored(std::get<1>(GetParam()), n, k, 13);
  const PackedMatrix packed(stored.raw, 0, n);
  const std::vector<float> x = RandomRows(m * k, 14);
  std::vector<float> all(static_cast<size_t>(m * n));
  ThreadPool many(4);
  Linear(many, packed, x.data(), k, m, all.data(), n);
  ThreadPool one(1);
  std::vector<int64_t> chunks = {60, 128, 193, 499};
  for (int64_t chunk = 1; chunk < 52; ++chunk) chunks.push_back(chunk);
  for (const int64_t chunk : chunks) {
    const int64_t rows = std::min(m, 2 * chunk);
    std::vector<float> y(static_cast<size_t>(rows * n));
    for (int64_t r = 0; r < rows; r += chunk) {
      Linear(one, packed, x.data() + r * k, k, std::min(chunk, rows - r), y.data() + r * n, n);
    }
    EXPECT_EQ(std::memcmp(y.data(), all.data(), y.size() * sizeof(float)), 0) << chunk;
  }
}

// Widths that leave a thread nothing of one matrix, and such that all have several tasks of each.
TEST_P(LinearCompany, PartsAreThoseOfEachMatrixAlone) {
  constexpr int64_t kCount = 5, kInputs = 544, kRows = 70;
  for (const int64_t n : {8, 40, 200}) {
    std::vector<Stored> stored;
    std::vector<PackedMatrix> packed;
    for (int64_t i = 0; i < kCount; ++i) {
      stored.push_back(MakeStored(std::get<1>(GetParam()), n, kInputs, static_cast<uint32_t>(i)));
      packed.emplace_back(stored.back().raw, 0, n);
    }
    const std::vector<float> x = RandomRows(kRows * kCount * kInputs, 21);
    ThreadPool one(1), many(4);
    for (const int64_t m : {int64_t{1}, int64_t{5}, int64_t{20}, kRows}) {
      std::vector<float> y(static_cast<size_t>(m * kCount * n)), expected = y;
      std::vector<LinearPart> parts;
      for (int64_t i = 0; i < kCount; ++i) {
        const PackedMatrix& w = packed[static_cast<size_t>(i)];
        parts.push_back({&w, x.data() + i * kInputs, y.data() + i * n});
        Linear(one, w, x.data() + i * kInputs, kCount * kInputs, m, expected.data() + i * n,
               kCount * n);
      }
      LinearParts(many, parts, kCount * kInputs, m, kCount * n);
      EXPECT_EQ(std::memcmp(y.data(), expected.data(), y.size() * sizeof(float)), 0)
          << n << ' ' << m;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, LinearCompany, testing::Combine(kPaths, kFormats));

}  // namespace
}  // namespace cairn::kernels
