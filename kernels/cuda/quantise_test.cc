// Rounding activations, to the byte of the CPU's definition.
#include "kernels/cuda/quantise.h"

#include <algorithm>
#include <cmath>

#include "kernels/cpu/vector_ops.h"
#include "kernels/cuda/test_util.h"

namespace cairn::kernels::cuda {
namespace {

class QuantiseTest : public DeviceTest {};

struct Quantised {
  std::vector<uint8_t> codes;
  std::vector<float> scales;  // [row][k / 128]
};

// The definition.
Quantised OnCpu(const std::vector<float>& x, int64_t rows, int64_t k) {
  Quantised out;
  for (int64_t g = 0; g < rows * k / kQuantGroup; ++g) {
    const float* const part = x.data() + g * kQuantGroup;
    float most = 0;
    for (int64_t i = 0; i < kQuantGroup; ++i) most = std::max(most, std::fabs(part[i]));
    const float scale = E8m0ToF32(ScaleE8m0Fp8(most));
    out.scales.push_back(scale);
    for (int64_t i = 0; i < kQuantGroup; ++i) out.codes.push_back(F32ToE4m3(part[i] / scale));
  }
  return out;
}

struct DeviceRows {
  DeviceBuffer<uint8_t> codes;
  DeviceBuffer<float> scales;
  QuantisedRows rows;

  DeviceRows(int64_t count, int64_t k)
      : codes(DeviceBuffer<uint8_t>::Create(static_cast<size_t>(count * k)).value()),
        scales(DeviceBuffer<float>::Create(static_cast<size_t>(ScaleCount(count, k))).value()),
        rows{codes.get(), scales.get(), count, k, ScaleStride(count)} {
    EXPECT_TRUE(codes.Fill(0x7f).ok());
    EXPECT_TRUE(scales.Fill(0xff).ok());
  }
  Quantised Read() const {
    Quantised out{codes.Read().value(), {}};
    const std::vector<float> columns = scales.Read().value();
    for (int64_t r = 0; r < rows.rows; ++r) {
      for (int64_t g = 0; g < rows.k / kQuantGroup; ++g) {
        out.scales.push_back(columns[static_cast<size_t>(g * rows.scale_stride + r)]);
      }
    }
    return out;
  }
};

// Groups of every size from far below the floor up, one of zeros, ties of the rounding.
std::vector<float> WideInputs(int64_t rows, int64_t k) {
  std::vector<float> x = RandomFloats(static_cast<size_t>(rows * k), 5, 2.0f);
  for (size_t i = 0; i < x.size(); ++i) {
    const int group = static_cast<int>(i / kQuantGroup);
    x[i] = group % 61 == 7 ? std::copysign(0.0f, x[i]) : std::ldexp(x[i], group % 61 - 30);
    if (group % 61 == 8) x[i] = std::nearbyint(x[i] * 0x1p26f) * 17.0f;
  }
  return FromBf16(ToBf16(x));
}

TEST_F(QuantiseTest, CodesAndScalesAreTheDefinitionsToTheByte) {
  constexpr int64_t kRows = 37, kK = 640;
  const std::vector<float> x = WideInputs(kRows, kK);
  const auto device_x = DeviceBuffer<uint16_t>::Of(ToBf16(x)).value();
  const DeviceRows to(kRows, kK);
  ASSERT_EQ(QuantiseRows(nullptr, device_x.get(), nullptr, to.rows), absl::OkStatus());
  const Quantised want = OnCpu(x, kRows, kK), got = to.Read();
  EXPECT_EQ(got.scales, want.scales);
  EXPECT_EQ(got.codes, want.codes);
}

TEST_F(QuantiseTest, RowsAreGathered) {
  constexpr int64_t kRows = 5, kK = 256;
  const std::vector<float> x = WideInputs(kRows, kK);
  const std::vector<int32_t> from = {4, 0, 0, 3, 4, 1, 2};
  std::vector<float> gathered;
  for (const int32_t row : from) {
    gathered.insert(gathered.end(), x.begin() + row * kK, x.begin() + (row + 1) * kK);
  }
  const auto device_x = DeviceBuffer<uint16_t>::Of(ToBf16(x)).value();
  const auto device_from = DeviceBuffer<int32_t>::Of(from).value();
  const DeviceRows to(std::ssize(from), kK);
  ASSERT_EQ(QuantiseRows(nullptr, device_x.get(), device_from.get(), to.rows), absl::OkStatus());
  const Quantised want = OnCpu(gathered, std::ssize(from), kK), got = to.Read();
  EXPECT_EQ(got.scales, want.scales);
  EXPECT_EQ(got.codes, want.codes);
}

TEST_F(QuantiseTest, SwiGluIsTheCpusToTheByte) {
  constexpr int64_t kRows = 9, kK = 384;
  const std::vector<float> x = FromBf16(ToBf16(RandomFloats(kRows * 2 * kK, 6, 50.0f)));
  std::vector<float> y(kRows * kK);
  for (const bool weighted : {false, true}) {
    const std::vector<float> factors = RandomFloats(kRows, 7, 3.0f);
    for (int64_t r = 0; r < kRows; ++r) {
      const float* const row = x.data() + r * 2 * kK;
      SwiGlu(row, row + kK, kK, 10.0f, weighted ? factors[static_cast<size_t>(r)] : 1.0f,
             y.data() + r * kK);
    }
    const auto device_x = DeviceBuffer<uint16_t>::Of(ToBf16(x)).value();
    const auto device_factors = DeviceBuffer<float>::Of(factors).value();
    const DeviceRows to(kRows, kK);
    ASSERT_EQ(QuantiseSwiGlu(nullptr, device_x.get(), weighted ? device_factors.get() : nullptr,
                             10.0f, to.rows),
              absl::OkStatus());
    const Quantised want = OnCpu(FromBf16(ToBf16(y)), kRows, kK), got = to.Read();
    EXPECT_EQ(got.scales, want.scales);
    EXPECT_EQ(got.codes, want.codes);
  }
}

// Every gate that BF16 has, but for those that are no number; groups of 128 hold a few exponents.
TEST_F(QuantiseTest, SwiGluOfEveryGateIsTheCpusToTheByte) {
  constexpr int64_t kRows = 512, kK = 128;
  std::vector<float> x, y(kRows * kK);
  for (int64_t r = 0; r < kRows; ++r) {
    for (int64_t i = 0; i < kK; ++i) {
      const float gate = Bf16ToF32(static_cast<uint16_t>(r * kK + i));
      x.push_back(std::isfinite(gate) ? gate : 0.0f);
    }
    // So that a result has all of its bits in its code's place.
    const float up = std::ldexp(1.0f + static_cast<float>(r % 7) * 0.125f, 2);
    x.insert(x.end(), kK, up);
    const float* const row = x.data() + r * 2 * kK;
    SwiGlu(row, row + kK, kK, 0.0f, 1.0f, y.data() + r * kK);
  }
  const auto device_x = DeviceBuffer<uint16_t>::Of(ToBf16(x)).value();
  const DeviceRows to(kRows, kK);
  ASSERT_EQ(QuantiseSwiGlu(nullptr, device_x.get(), nullptr, 0.0f, to.rows), absl::OkStatus());
  const Quantised want = OnCpu(FromBf16(ToBf16(y)), kRows, kK), got = to.Read();
  EXPECT_EQ(got.scales, want.scales);
  EXPECT_EQ(got.codes, want.codes);
}

TEST(QuantiseShapeTest, WhatCannotBeIsRefused) {
  QuantisedRows to{.rows = 3, .k = 100, .scale_stride = 4};
  EXPECT_EQ(QuantiseRows(nullptr, nullptr, nullptr, to).code(), absl::StatusCode::kInvalidArgument);
  to = {.rows = 3, .k = 128, .scale_stride = 3};
  EXPECT_EQ(QuantiseRows(nullptr, nullptr, nullptr, to).code(), absl::StatusCode::kInvalidArgument);
  alignas(16) static float floats[8];
  to = {.scales = floats + 1, .rows = 3, .k = 128, .scale_stride = 4};
  EXPECT_EQ(QuantiseRows(nullptr, nullptr, nullptr, to).code(), absl::StatusCode::kInvalidArgument);
  to = {.rows = 5, .k = 128, .scale_stride = 4};
  EXPECT_EQ(QuantiseSwiGlu(nullptr, nullptr, nullptr, 0, to).code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace cairn::kernels::cuda
