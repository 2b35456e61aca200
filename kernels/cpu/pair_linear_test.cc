// PairLinear against its definition in linear.h, to the bit, on every path: whole and odd shapes,
// every code, sums that become subnormal, any number of rows together, any number of threads.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <tuple>
#include <vector>

#include "kernels/cpu/cpu_path.h"
#include "kernels/cpu/formats.h"
#include "kernels/cpu/linear.h"

namespace cairn::kernels {
namespace {

struct Stored {
  std::vector<uint8_t> values, scales;
  RawMatrix raw;
};

// Any codes that are numbers, with scales from `lowest` on; BF16 with such exponents, each 16th a
// zero.
Stored MakeStored(WeightFormat format, int64_t rows, int64_t k, uint32_t seed, int lowest = 110,
                  unsigned spread = 20) {
  std::mt19937 random(seed);
  Stored s;
  const bool fp8 = format == WeightFormat::kFp8;
  if (format == WeightFormat::kBf16) {
    for (int64_t i = 0; i < rows * k; ++i) {
      const auto any = static_cast<uint32_t>(random());
      const auto exponent = static_cast<uint32_t>(lowest) + (any >> 20) % spread;
      uint32_t bits = (any & 0x807f) | exponent << 7;
      if (random() % 16 == 0) bits = 0;
      s.values.push_back(static_cast<uint8_t>(bits));
      s.values.push_back(static_cast<uint8_t>(bits >> 8));
    }
    s.raw = {format, rows, k, s.values.data(), nullptr};
    return s;
  }
  s.values.resize(static_cast<size_t>(rows * k / (fp8 ? 1 : 2)));
  for (uint8_t& code : s.values) {
    code = static_cast<uint8_t>(random());
    if (fp8 && (code & 0x7f) == 0x7f) code ^= 1;
  }
  s.scales.resize(
      static_cast<size_t>(fp8 ? (rows + 127) / 128 * ((k + 127) / 128) : rows * k / 32));
  for (uint8_t& scale : s.scales) {
    scale = static_cast<uint8_t>(lowest + static_cast<int>(random() % spread));
  }
  s.raw = {format, rows, k, s.values.data(), s.scales.data()};
  return s;
}

// As the engine's inputs are: e4m3 with a scale for 128 values; each 16th is a zero.
std::vector<float> MakeRows(int64_t n, uint32_t seed, float factor = 1.0f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, 1.0f);
  std::vector<float> x(static_cast<size_t>((n + 127) / 128 * 128));
  for (float& v : x) v = random() % 16 == 0 ? (random() % 2 == 0 ? 0.0f : -0.0f) : normal(random);
  SimulateFp8(x, 128);
  for (float& v : x) v *= factor;
  return x;
}

// A result, or an input, without subnormals. Rounding to one that is exactly 2^-126 is no trap
// here: fma in double would not tell, but std::fma of floats rounds once, and before that a
// magnitude is below 2^-126 that rounds to it only within 2^-150.
float Flushed(float v) { return std::fpclassify(v) == FP_SUBNORMAL ? std::copysign(0.0f, v) : v; }

// An input, as it is taken.
float Taken(float v) { return Bf16ToF32(F32ToBf16(Flushed(v))); }

float Defined(const RawMatrix& raw, int64_t row, const float* x) {
  float sum = 0.0f;
  for (int64_t group = 0; group < raw.k; group += 32) {
    float parts[2] = {};
    for (int64_t k = group; k < group + 32; ++k) {
      float w = Flushed(RawValue(raw, row, k));
      if (w == 0.0f && raw.format != WeightFormat::kBf16) w = -0.0f;
      float& part = parts[k % 2];
      part = Flushed(std::fma(Taken(x[k]), w, part));
    }
    sum = Flushed(sum + Flushed(parts[0] + parts[1]));
  }
  return sum;
}

// All that PairLinear has, where the processor has it.
struct Path {
  const char* name;
  PairPath pairs;
  CpuPath vectors;
};
constexpr Path kAllPaths[] = {{"Avx2", PairPath::kVectors, CpuPath::kAvx2},
                              {"Avx512", PairPath::kVectors, CpuPath::kAvx512},
                              {"Bf16", PairPath::kBf16, CpuPath::kAvx512},
                              {"Amx", PairPath::kAmx, CpuPath::kAvx512}};

class PairLinears : public testing::TestWithParam<std::tuple<Path, WeightFormat>> {
 protected:
  void SetUp() override {
    const Path path = std::get<0>(GetParam());
    if (!HasPairPath(path.pairs) || !HasCpuPath(path.vectors)) {
      GTEST_SKIP() << "this processor has no " << path.name << ": not tested with it";
    }
    ChooseCpuPath(path.vectors);
    ChoosePairPath(path.pairs);
  }
  void TearDown() override {
    ChooseCpuPath(vectors_);
    ChoosePairPath(pairs_);
  }
  static WeightFormat format() { return std::get<1>(GetParam()); }

  static void ExpectDefined(const Stored& stored, const std::vector<float>& x, int64_t m,
                            int threads = 1) {
    const int64_t n = stored.raw.rows, k = stored.raw.k;
    const PackedMatrix packed(stored.raw, 0, n);
    ASSERT_TRUE(packed.takes_pairs());
    ThreadPool pool(threads);
    std::vector<float> y(static_cast<size_t>(m * (n + 3)), -1.0f);
    PairLinear(pool, packed, x.data(), k, m, y.data(), n + 3);
    for (int64_t i = 0; i < m * (n + 3); ++i) {
      const int64_t row = i / (n + 3), output = i % (n + 3);
      const float want = output < n ? Defined(stored.raw, output, x.data() + row * k) : -1.0f;
      ASSERT_EQ(std::bit_cast<uint32_t>(y[static_cast<size_t>(i)]), std::bit_cast<uint32_t>(want))
          << y[static_cast<size_t>(i)] << ' ' << want << ", row " << row << " output " << output
          << " of " << n << ", k " << k << ", rows " << m;
    }
  }

 private:
  const CpuPath vectors_ = ChosenCpuPath();
  const PairPath pairs_ = ChosenPairPath();
};

TEST(PairPaths, TheFastestIsChosen) {
  PairPath fastest = PairPath::kVectors;
  for (const PairPath path : {PairPath::kBf16, PairPath::kAmx}) {
    if (HasPairPath(path)) fastest = path;
  }
  EXPECT_EQ(ChosenPairPath(), fastest);
}

TEST_P(PairLinears, EqualsTheDefinitionToTheBit) {
  for (const int64_t n : {1, 16, 40, 130}) {
    for (const int64_t k : {32, 160, 256, 544}) {
      ExpectDefined(MakeStored(format(), n, k, 7), MakeRows(13 * k, 8), 13, 3);
    }
  }
}

TEST_P(PairLinears, AnyNumberOfRows) {
  const Stored stored = MakeStored(format(), 40, 288, 9);
  const std::vector<float> x = MakeRows(66 * 288, 10);
  for (int64_t m = 1; m <= 66; ++m) ExpectDefined(stored, x, m);
}

// From nothing to normal numbers in the parts, in their sums and in the sums of groups.
TEST_P(PairLinears, SubnormalResultsAreZeros) {
  for (const int lowest : {10, 14, 20}) {
    for (const float factor : {0x1p-2f, 0x1p-10f, 0x1p-20f}) {
      const Stored stored = MakeStored(format(), 33, 160, 11, lowest, 4);
      ExpectDefined(stored, MakeRows(20 * 160, 12, factor), 20);
    }
  }
}

TEST_P(PairLinears, LargestValues) {
  const int largest = format() == WeightFormat::kFp8   ? 134
                      : format() == WeightFormat::kFp4 ? 252
                                                       : 247;
  const Stored stored = MakeStored(format(), 16, 128, 13, largest, 1);
  ExpectDefined(stored, MakeRows(5 * 128, 14, format() == WeightFormat::kFp8 ? 0x1p100f : 1.0f), 5);
}

TEST_P(PairLinears, ZerosInRowsAndWeights) {
  Stored stored = MakeStored(format(), 32, 128, 15);
  if (format() != WeightFormat::kBf16) {  // of which some are zeros as made
    for (uint8_t& code : stored.values) code = code % 4 == 0 ? code : uint8_t{0x80};
  }
  std::vector<float> x = MakeRows(4 * 128, 16);
  std::fill_n(x.begin(), 128, -0.0f);
  ExpectDefined(stored, x, 4);
}

// Subnormal ones too, and such as lie in the middle of two BF16 numbers.
TEST_P(PairLinears, InputsAreRounded) {
  const int64_t k = 160, m = 20;
  std::mt19937 random(23);
  std::vector<float> x(static_cast<size_t>(m * k));
  for (const bool small : {false, true}) {
    for (float& v : x) {
      uint32_t bits =
          static_cast<uint32_t>(random()) & 0x80ffffff;  // up to 2^-126 and a half more of it
      if (!small) bits |= 0x3f000000;
      if (random() % 4 == 0) bits = (bits & 0xffff0000) | 0x8000;
      v = std::bit_cast<float>(bits);
    }
    ExpectDefined(MakeStored(format(), 33, k, 24, small ? 127 : 110, small ? 4 : 20), x, m);
  }
}

TEST_P(PairLinears, SubnormalWeightsAreZeros) {
  if (format() != WeightFormat::kBf16) GTEST_SKIP() << "taken only where none is (TakesPairs)";
  Stored stored = MakeStored(format(), 20, 128, 25);
  for (size_t i = 1; i < stored.values.size(); i += 6) {
    stored.values[i] &= 0x80;
    stored.values[i - 1] = 0x7f;
  }
  std::vector<float> x = MakeRows(5 * 128, 26, 0x1p60f);
  ExpectDefined(stored, x, 5);
}

// Zeros of negative parts stay negative behind weights of zero, which shows where the sum so far is
// -0 as well. BF16's zeros have the sign that they are stored with.
TEST_P(PairLinears, WeightsOfZeroAreNegative) {
  const int64_t k = 96;
  Stored stored = MakeStored(format(), 1, k, 22, 10, 1);  // scales of 2^-117
  std::fill(stored.values.begin(), stored.values.end(), uint8_t{0});
  for (const size_t i : {0, 32, 64, 65}) {  // 1
    if (format() == WeightFormat::kFp8) stored.values[i] = 0x38;
    if (format() == WeightFormat::kFp4)
      stored.values[i / 2] |= static_cast<uint8_t>(2 << i % 2 * 4);
    if (format() == WeightFormat::kBf16) stored.values[2 * i + 1] = 10 << 7 >> 8;
  }
  std::vector<float> x(static_cast<size_t>(k), 1.0f);
  x[0] = 0x1p-9f;             // 2^-126,
  x[32] = -0x1.8p-9f;         // less a half more of it: -0
  x[64] = x[65] = -0x1p-11f;  // and both parts -0
  ASSERT_EQ(std::bit_cast<uint32_t>(Defined(stored.raw, 0, x.data())),
            format() == WeightFormat::kBf16 ? 0u : 0x80000000u);
  ExpectDefined(stored, x, 1);
}

TEST_P(PairLinears, RowSliceKeepsItsScales) {
  // Rows 56..183 straddle two of FP8's scale blocks within a panel.
  const int64_t k = 128;
  const Stored stored = MakeStored(format(), 256, k, 17);
  const PackedMatrix packed(stored.raw, 56, 128);
  const std::vector<float> x = MakeRows(k, 18);
  ThreadPool pool(1);
  std::vector<float> y(128);
  PairLinear(pool, packed, x.data(), k, 1, y.data(), 128);
  for (int64_t i = 0; i < 128; ++i) {
    EXPECT_EQ(y[static_cast<size_t>(i)], Defined(stored.raw, 56 + i, x.data())) << i;
  }
}

TEST_P(PairLinears, RowsAreIndependentOfCompanyAndThreads) {
  const int64_t n = 200, k = 544, m = 1000;
  const Stored stored = MakeStored(format(), n, k, 19);
  const PackedMatrix packed(stored.raw, 0, n);
  const std::vector<float> x = MakeRows(m * k, 20);
  std::vector<float> all(static_cast<size_t>(m * n));
  ThreadPool many(4), one(1);
  PairLinear(many, packed, x.data(), k, m, all.data(), n);
  for (const int64_t chunk : {1, 7, 16, 17, 31, 32, 33, 48, 60, 192, 193, 769, 999}) {
    const int64_t rows = std::min(m, 2 * chunk);
    std::vector<float> y(static_cast<size_t>(rows * n));
    for (int64_t r = 0; r < rows; r += chunk) {
      PairLinear(one, packed, x.data() + r * k, k, std::min(chunk, rows - r), y.data() + r * n, n);
    }
    EXPECT_EQ(std::memcmp(y.data(), all.data(), y.size() * sizeof(float)), 0) << chunk;
  }
}

TEST_P(PairLinears, PartsAreThoseOfEachMatrixAlone) {
  constexpr int64_t kCount = 3, kInputs = 96, kRows = 70;
  for (const int64_t n : {8, 40}) {
    std::vector<Stored> stored;
    std::vector<PackedMatrix> packed;
    for (int64_t i = 0; i < kCount; ++i) {
      stored.push_back(MakeStored(format(), n, kInputs, static_cast<uint32_t>(i)));
      packed.emplace_back(stored.back().raw, 0, n);
    }
    const std::vector<float> x = MakeRows(kRows * kCount * kInputs, 27);
    ThreadPool one(1), many(4);
    for (const int64_t m : {int64_t{1}, int64_t{5}, int64_t{20}, kRows}) {
      std::vector<float> y(static_cast<size_t>(m * kCount * n)), expected = y;
      std::vector<LinearPart> parts;
      for (int64_t i = 0; i < kCount; ++i) {
        const PackedMatrix& w = packed[static_cast<size_t>(i)];
        parts.push_back({&w, x.data() + i * kInputs, y.data() + i * n});
        PairLinear(one, w, x.data() + i * kInputs, kCount * kInputs, m, expected.data() + i * n,
                   kCount * n);
      }
      PairLinearParts(many, parts, kCount * kInputs, m, kCount * n);
      EXPECT_EQ(std::memcmp(y.data(), expected.data(), y.size() * sizeof(float)), 0)
          << n << ' ' << m;
    }
  }
}

std::string NameOf(const testing::TestParamInfo<PairLinears::ParamType>& instance) {
  const auto [path, format] = instance.param;
  const char* const names[] = {"F32", "Bf16", "Fp8", "Fp4"};
  return std::string(path.name) + names[static_cast<size_t>(format)];
}
INSTANTIATE_TEST_SUITE_P(Paths, PairLinears,
                         testing::Combine(testing::ValuesIn(kAllPaths),
                                          testing::Values(WeightFormat::kBf16, WeightFormat::kFp8,
                                                          WeightFormat::kFp4)),
                         NameOf);

TEST(TakesPairs, OnlyWholeGroupsOfNormalNumbers) {
  const auto takes = [](WeightFormat format, int64_t k, uint8_t scale) {
    Stored s = MakeStored(format == WeightFormat::kFp4 ? format : WeightFormat::kFp8, 16, k, 21);
    std::vector<uint8_t> values = s.values;
    values.resize(static_cast<size_t>(16 * k * 4));
    s.scales.back() = scale;
    return PackedMatrix({format, 16, k, values.data(), s.scales.data()}, 0, 16).takes_pairs();
  };
  EXPECT_TRUE(takes(WeightFormat::kFp8, 256, 10));
  EXPECT_TRUE(takes(WeightFormat::kFp8, 256, 134));
  EXPECT_FALSE(takes(WeightFormat::kFp8, 256, 9)) << "2^-9 of 2^-118 is subnormal";
  EXPECT_FALSE(takes(WeightFormat::kFp8, 256, 135)) << "kept as F32";
  EXPECT_FALSE(takes(WeightFormat::kFp8, 240, 120)) << "half a group at the end";
  EXPECT_TRUE(takes(WeightFormat::kFp4, 256, 2));
  EXPECT_TRUE(takes(WeightFormat::kFp4, 256, 252));
  EXPECT_FALSE(takes(WeightFormat::kFp4, 256, 1));
  EXPECT_FALSE(takes(WeightFormat::kFp4, 256, 253));
  EXPECT_TRUE(takes(WeightFormat::kBf16, 256, 120));
  EXPECT_FALSE(takes(WeightFormat::kBf16, 240, 120)) << "half a group at the end";
  EXPECT_FALSE(takes(WeightFormat::kF32, 256, 120));
}

}  // namespace
}  // namespace cairn::kernels
