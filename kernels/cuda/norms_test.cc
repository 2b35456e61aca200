// Goal: a norm is the CPU's on the same values but for the order of its sum, and that order is the
// one written down. Method: the same order one scalar at a time (rows_reference.h), bits compared;
// what is rounded to FP8 goes through the CPU's functions.
#include "kernels/cuda/norms.h"

#include <algorithm>
#include <cstring>

#include "kernels/cpu/rope.h"
#include "kernels/cpu/vector_ops.h"
#include "kernels/cuda/rows_reference.h"
#include "kernels/cuda/test_util.h"

namespace cairn::kernels::cuda {
namespace {

constexpr float kEps = 1e-6f;

std::span<const float> Row(const std::vector<float>& values, int64_t row, int64_t n) {
  return std::span(values).subspan(static_cast<size_t>(row * n), static_cast<size_t>(n));
}

// As RmsNorm should give it; weight empty: none.
std::vector<uint16_t> ExpectedNorm(const std::vector<float>& x, const std::vector<float>& weight,
                                   int64_t n) {
  std::vector<uint16_t> out;
  for (int64_t r = 0; r < std::ssize(x) / n; ++r) {
    const std::vector<uint16_t> row = ToBf16(RmsNormByLanes(Row(x, r, n), weight, kEps));
    out.insert(out.end(), row.begin(), row.end());
  }
  return out;
}

TEST(NormsRefuseTest, ShapesOutOfBounds) {
  const auto code = absl::StatusCode::kInvalidArgument;
  for (const int64_t n : {0, 12, 8200}) {
    EXPECT_EQ(
        RmsNorm(nullptr, static_cast<uint16_t*>(nullptr), nullptr, 1, n, kEps, nullptr).code(),
        code);
  }
  EXPECT_EQ(RmsNorm(nullptr, static_cast<float*>(nullptr), nullptr, -1, 8, kEps, nullptr).code(),
            code);
  EXPECT_EQ(
      RmsNormQuantise(nullptr, nullptr, nullptr, 1, 64, kEps, nullptr, nullptr, nullptr, 4).code(),
      code);
  EXPECT_EQ(
      RmsNormQuantise(nullptr, nullptr, nullptr, 5, 128, kEps, nullptr, nullptr, nullptr, 4).code(),
      code);
  EXPECT_EQ(NormRotateHeads(nullptr, nullptr, nullptr, 1, 0, kEps, nullptr).code(), code);
  EXPECT_EQ(NormRotateKeys(nullptr, nullptr, nullptr, nullptr, -1, kEps, nullptr).code(), code);
  EXPECT_EQ(RopeAngles(nullptr, nullptr, 1, nullptr, 0, nullptr).code(), code);
}

class NormsTest : public DeviceTest {};

TEST_F(NormsTest, AreTheWrittenOrderToTheBit) {
  for (const int64_t n : {8, 40, 512, 1024, 1536, 4096, 7168, 8192}) {
    SCOPED_TRACE(n);
    constexpr int64_t kRows = 7;
    std::vector<float> x = RandomFloats(static_cast<size_t>(kRows * n), 1, 8.0f);
    std::fill_n(x.begin(), n, 0.0f);
    const std::vector<uint16_t> weight = ToBf16(RandomFloats(static_cast<size_t>(n), 2, 4.0f));
    const auto device_weight = DeviceBuffer<uint16_t>::Of(weight).value();
    auto out = DeviceBuffer<uint16_t>::Create(x.size()).value();

    const auto floats = DeviceBuffer<float>::Of(x).value();
    ASSERT_TRUE(out.Fill(0xff).ok());
    ASSERT_TRUE(
        RmsNorm(nullptr, floats.get(), device_weight.get(), kRows, n, kEps, out.get()).ok());
    EXPECT_EQ(out.Read().value(), ExpectedNorm(x, FromBf16(weight), n));

    const std::vector<uint16_t> halves = ToBf16(x);
    const auto input = DeviceBuffer<uint16_t>::Of(halves).value();
    ASSERT_TRUE(out.Fill(0xff).ok());
    ASSERT_TRUE(RmsNorm(nullptr, input.get(), nullptr, kRows, n, kEps, out.get()).ok());
    EXPECT_EQ(out.Read().value(), ExpectedNorm(FromBf16(halves), {}, n));
  }
}

TEST_F(NormsTest, IsCloseToTheCpus) {
  constexpr int64_t kN = 4096;
  const std::vector<float> x = FromBf16(ToBf16(RandomFloats(kN, 3, 2.0f)));
  std::vector<float> want(kN);
  kernels::RmsNorm(x.data(), nullptr, kN, kEps, want.data());
  const auto input = DeviceBuffer<float>::Of(x).value();
  const auto out = DeviceBuffer<uint16_t>::Create(kN).value();
  ASSERT_TRUE(RmsNorm(nullptr, input.get(), nullptr, 1, kN, kEps, out.get()).ok());
  EXPECT_LT(RelativeError(FromBf16(out.Read().value()), want), 2e-3);  // BF16's own is 1.7e-3
}

// codes and scales of BF16 rows, by formats.h.
void ExpectQuantised(const std::vector<uint16_t>& values, size_t n,
                     const std::vector<uint8_t>& codes, const std::vector<float>& scales,
                     size_t scale_stride) {
  const std::vector<float> v = FromBf16(values);
  size_t wrong = 0;
  for (size_t group = 0; group < v.size() / 128; ++group) {
    float amax = 0.0f;
    for (size_t i = 0; i < 128; ++i) amax = std::max(amax, std::fabs(v[group * 128 + i]));
    const uint8_t byte = ScaleE8m0Fp8(amax);
    const size_t row = group * 128 / n;
    const size_t column = group * 128 % n / 128;
    wrong += scales[column * scale_stride + row] != E8m0ToF32(byte) ? 1 : 0;
    for (size_t i = group * 128; i < (group + 1) * 128; ++i) {
      const uint8_t code = F32ToE4m3(v[i] * (1.0f / E8m0ToF32(byte)));
      if (codes[i] != code && ++wrong < 4) {
        ADD_FAILURE() << "value " << i << " of " << v[i] << ": code " << int{codes[i]} << ", not "
                      << int{code};
      }
    }
  }
  EXPECT_EQ(wrong, 0u);
}

TEST_F(NormsTest, QuantisesAsTheCpuDoes) {
  for (const int64_t n : {128, 512, 1536, 4096, 7168}) {
    SCOPED_TRACE(n);
    constexpr int64_t kRows = 5;
    std::vector<float> x = RandomFloats(static_cast<size_t>(kRows * n), 4, 2.0f);
    std::fill_n(x.begin(), n, 0.0f);
    // Weights from 2^-12 to 2^12: groups of every scale, and codes below the smallest normal.
    std::vector<float> weight = RandomFloats(static_cast<size_t>(n), 5, 2.0f);
    for (size_t i = 0; i < weight.size(); ++i) {
      weight[i] = std::ldexp(weight[i], static_cast<int>(i / 40 % 25) - 12);
    }
    const std::vector<uint16_t> halves = ToBf16(x);
    const std::vector<uint16_t> weight_halves = ToBf16(weight);
    const auto input = DeviceBuffer<uint16_t>::Of(halves).value();
    const auto device_weight = DeviceBuffer<uint16_t>::Of(weight_halves).value();
    auto out = DeviceBuffer<uint16_t>::Create(x.size()).value();
    auto codes = DeviceBuffer<uint8_t>::Create(x.size()).value();
    constexpr int64_t kStride = 8;
    auto scales = DeviceBuffer<float>::Create(static_cast<size_t>(n / 128 * kStride)).value();
    ASSERT_TRUE(out.Fill(0xff).ok() && codes.Fill(0xff).ok() && scales.Fill(0xff).ok());
    ASSERT_TRUE(RmsNormQuantise(nullptr, input.get(), device_weight.get(), kRows, n, kEps,
                                out.get(), codes.get(), scales.get(), kStride)
                    .ok());
    const std::vector<uint16_t> normed = out.Read().value();
    EXPECT_EQ(normed, ExpectedNorm(FromBf16(halves), FromBf16(weight_halves), n));
    const std::vector<uint8_t> with_out = codes.Read().value();
    ExpectQuantised(normed, static_cast<size_t>(n), with_out, scales.Read().value(), kStride);

    ASSERT_TRUE(codes.Fill(0xff).ok());
    ASSERT_TRUE(RmsNormQuantise(nullptr, input.get(), device_weight.get(), kRows, n, kEps, nullptr,
                                codes.get(), scales.get(), kStride)
                    .ok());
    EXPECT_EQ(codes.Read().value(), with_out);
  }
}

TEST_F(NormsTest, ARowIsTheSameInAnyCompany) {
  constexpr int64_t kRows = 33;
  constexpr int64_t kN = 1536;
  const std::vector<uint16_t> x = ToBf16(RandomFloats(kRows * kN, 6));
  const auto input = DeviceBuffer<uint16_t>::Of(x).value();
  const auto all = DeviceBuffer<uint16_t>::Create(x.size()).value();
  const auto one = DeviceBuffer<uint16_t>::Create(kN).value();
  ASSERT_TRUE(RmsNorm(nullptr, input.get(), nullptr, kRows, kN, kEps, all.get()).ok());
  const std::vector<uint16_t> together = all.Read().value();
  for (const int64_t r : {0, 17, 32}) {
    ASSERT_TRUE(RmsNorm(nullptr, input.get() + r * kN, nullptr, 1, kN, kEps, one.get()).ok());
    EXPECT_TRUE(std::ranges::equal(one.Read().value(),
                                   std::span(together).subspan(static_cast<size_t>(r * kN), kN)));
  }
}

std::vector<float> RandomAngles(int64_t count, uint64_t seed) {
  std::vector<float> out = RandomFloats(static_cast<size_t>(count * 32), seed, 6.28f);
  std::vector<float> cos_sin;
  for (const float angle : out) {
    cos_sin.push_back(std::cos(angle));
    cos_sin.push_back(std::sin(angle));
  }
  return cos_sin;
}

TEST_F(NormsTest, HeadsAreNormalisedAndRotatedInPlace) {
  constexpr int64_t kTokens = 5;
  constexpr int64_t kHeads = 3;
  constexpr int64_t kDim = 512;
  const std::vector<uint16_t> q = ToBf16(RandomFloats(kTokens * kHeads * kDim, 7, 4.0f));
  const std::vector<float> angles = RandomAngles(kTokens, 8);
  const auto device_q = DeviceBuffer<uint16_t>::Of(q).value();
  const auto device_angles = DeviceBuffer<float>::Of(angles).value();
  ASSERT_TRUE(NormRotateHeads(nullptr, device_q.get(), device_angles.get(), kTokens, kHeads, kEps,
                              device_q.get())
                  .ok());
  std::vector<uint16_t> want;
  const std::vector<float> values = FromBf16(q);
  for (int64_t r = 0; r < kTokens * kHeads; ++r) {
    std::vector<float> head = RmsNormByLanes(Row(values, r, kDim), {}, kEps);
    kernels::Rotate(head.data() + kDim - 64, angles.data() + r / kHeads * 64, 64, false);
    const std::vector<uint16_t> rounded = ToBf16(head);
    want.insert(want.end(), rounded.begin(), rounded.end());
  }
  EXPECT_EQ(device_q.Read().value(), want);
}

TEST_F(NormsTest, KeysAreNormalisedAndRotated) {
  constexpr int64_t kRows = 6;
  constexpr int64_t kDim = 128;
  const std::vector<float> x = RandomFloats(kRows * kDim, 9, 4.0f);
  const std::vector<uint16_t> weight = ToBf16(RandomFloats(kDim, 10, 2.0f));
  const std::vector<float> angles = RandomAngles(kRows, 11);
  const auto input = DeviceBuffer<float>::Of(x).value();
  const auto device_weight = DeviceBuffer<uint16_t>::Of(weight).value();
  const auto device_angles = DeviceBuffer<float>::Of(angles).value();
  const auto out = DeviceBuffer<float>::Create(x.size()).value();
  ASSERT_TRUE(NormRotateKeys(nullptr, input.get(), device_weight.get(), device_angles.get(), kRows,
                             kEps, out.get())
                  .ok());
  std::vector<float> want;
  for (int64_t r = 0; r < kRows; ++r) {
    std::vector<float> row = RmsNormByLanes(Row(x, r, kDim), FromBf16(weight), kEps);
    kernels::Rotate(row.data() + kDim - 64, angles.data() + r * 64, 64, false);
    want.insert(want.end(), row.begin(), row.end());
  }
  EXPECT_EQ(out.Read().value(), want);
}

// Differences from the CPU's table at every `stride`-th position below 2^20: {how many, of}.
std::pair<size_t, size_t> AngleDifferences(const RopeTable& table, int32_t stride) {
  std::vector<int32_t> positions;
  for (int32_t p = 0; p < 1 << 20; p += stride) positions.push_back(p);
  positions.push_back((1 << 20) - 1);
  const int64_t count = std::ssize(positions);
  const auto device_positions = DeviceBuffer<int32_t>::Of(positions).value();
  const auto freq = DeviceBuffer<float>::Of(table.frequencies()).value();
  const auto out = DeviceBuffer<float>::Create(static_cast<size_t>(count * table.dim())).value();
  EXPECT_TRUE(
      RopeAngles(nullptr, device_positions.get(), count, freq.get(), table.dim() / 2, out.get())
          .ok());
  const std::vector<float> got = out.Read().value();
  std::vector<float> want(static_cast<size_t>(table.dim()));
  size_t different = 0;
  for (int64_t i = 0; i < count; ++i) {
    table.Angles(positions[static_cast<size_t>(i)], want.data());
    for (size_t j = 0; j < want.size(); ++j) {
      const float value = got[static_cast<size_t>(i) * want.size() + j];
      if (value == want[j]) continue;
      ++different;
      EXPECT_TRUE(value == std::nextafter(want[j], 2.0f) || value == std::nextafter(want[j], -2.0f))
          << "position " << positions[static_cast<size_t>(i)] << ", value " << j << ": " << value
          << ", not " << want[j];
    }
  }
  return {different, got.size()};
}

RopeOptions LongRope() { return {.base = 160000.0, .original_len = 65536, .factor = 16.0}; }

// Both take sin and cos in double, but from different libraries: of those values that lie within
// the last bits of a double from halfway between two floats, the rounding may differ. That is one
// in 2^27 or rarer.
TEST_F(NormsTest, AnglesAreTheCpus) {
  EXPECT_EQ(AngleDifferences(RopeTable({}), 61).first, 0u);
  EXPECT_EQ(AngleDifferences(RopeTable(LongRope()), 61).first, 0u);
}

// All of them: some seconds of the CPU's time.
TEST_F(NormsTest, DISABLED_AnglesOfAllPositions) {
  for (const RopeOptions& options : {RopeOptions{}, LongRope()}) {
    const auto [different, of] = AngleDifferences(RopeTable(options), 1);
    std::printf("base %.0f: %zu of %zu differ in the last bit\n", options.base, different, of);
    EXPECT_LE(different, of >> 24);
  }
}

}  // namespace
}  // namespace cairn::kernels::cuda
