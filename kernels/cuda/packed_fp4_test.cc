// FP4 weights: that packing and decoding lose nothing, and products with them.
#include "kernels/cuda/packed_fp4.h"

#include "absl/strings/str_cat.h"
#include "kernels/cuda/linear_test_util.h"

namespace cairn::kernels::cuda {
namespace {

class PackedFp4Test : public DeviceTest {};

// Rows with a single 1 read W back: every value, with scales as far apart as can be.
TEST_F(PackedFp4Test, EveryValueIsExact) {
  constexpr int64_t kN = 256, kK = 384;
  const TestWeights w(WeightFormat::kFp4, Kind::kSpread, kN, kK);
  const std::vector<float> decoded = w.Decoded();
  std::vector<float> ones(kK * kK), want(kK * kN);
  for (int64_t k = 0; k < kK; ++k) {
    ones[static_cast<size_t>(k * kK + k)] = 1.0f;
    for (int64_t n = 0; n < kN; ++n) {
      want[static_cast<size_t>(k * kN + n)] = decoded[static_cast<size_t>(n * kK + k)];
    }
  }
  const TestRows x(ones, kK);
  ExpectSame(Multiply<float>(w.matrix(), x.quantised()), want, kN);
}

TEST_F(PackedFp4Test, ProductsOfWholeNumbersAreExact) {
  struct Shape {
    int64_t rows, n, k;
  };
  for (const Shape& shape : {Shape{1, 64, 128}, Shape{3, 1024, 2048}, Shape{12, 2048, 1024},
                             Shape{32, 192, 384}, Shape{90, 4096, 256}, Shape{1100, 1344, 640}}) {
    SCOPED_TRACE(absl::StrCat(shape.rows, " x ", shape.k, " to ", shape.n));
    const TestWeights w(WeightFormat::kFp4, Kind::kWhole, shape.n, shape.k);
    const TestRows x(Kind::kWhole, shape.rows, shape.k);
    ExpectSame(Multiply<float>(w.matrix(), x.quantised()),
               Product(x.Dequantised(), w.Decoded(), shape.rows, shape.n, shape.k), shape.n);
    if (HasFailure()) break;
  }
}

// The first row whose scale cannot be brought to its block's is told; groups of zeros fit always.
TEST_F(PackedFp4Test, ScalesTooFarApartAreTold) {
  constexpr int64_t kN = 128, kK = 256;
  std::vector<uint8_t> values(kN * kK / 2, 0x21), scales(kN * kK / 32, 120);
  const auto row_told = [&] {
    const auto device_values = OnDevice(values);
    const auto device_scales = OnDevice(scales);
    const auto blocks = Poisoned<uint8_t>(Fp4Blocks(kN, kK) * kFp4BlockBytes);
    const auto block_scales = Poisoned<uint8_t>(Fp4Blocks(kN, kK));
    const auto unfit = Poisoned<int32_t>(1);
    EXPECT_EQ(PackFp4(nullptr, device_values.get(), device_scales.get(), kN, kK, blocks.get(),
                      block_scales.get(), unfit.get()),
              absl::OkStatus());
    return unfit.Read().value()[0];
  };
  EXPECT_EQ(row_told(), kFp4AllFit);
  scales[70 * kK / 32 + 3] = 106;  // 14 below: still exact
  EXPECT_EQ(row_told(), kFp4AllFit);
  scales[70 * kK / 32 + 3] = 105;
  EXPECT_EQ(row_told(), 70);
  const absl::Status told = Fp4Fits(70);
  EXPECT_EQ(told.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(told.message().find("row 70"), absl::string_view::npos);
  std::fill_n(values.begin() + 70 * kK / 2 + 3 * 16, 16, uint8_t{0x80});
  EXPECT_EQ(row_told(), kFp4AllFit);
}

TEST(PackedFp4ShapeTest, WhatCannotBeIsRefused) {
  for (const auto& [n, k] : {std::pair{32, 128}, {64, 64}, {0, 128}}) {
    EXPECT_EQ(PackFp4(nullptr, nullptr, nullptr, n, k, nullptr, nullptr, nullptr).code(),
              absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace cairn::kernels::cuda
