// y = W x on the GPU. Whole numbers show every index: sums of them are exact, so a wrong place, a
// wrong scale or a stage read too early is a wrong number. Then: errors of true roundings, and that
// a row's bits do not depend on its company.
#include "kernels/cuda/linear.h"

#include "absl/strings/str_cat.h"
#include "kernels/cuda/linear_test_util.h"

namespace cairn::kernels::cuda {
namespace {

struct Shape {
  const char* why;
  int64_t rows, n, k;
};

class LinearTest : public DeviceTest {};

constexpr Shape kFp8Shapes[] = {
    {"one block of k", 8, 64, 128},
    {"two blocks of k", 8, 64, 256},
    {"one row", 1, 128, 512},
    {"k shared by 8 blocks of a cluster", 1, 1024, 4096},
    {"by 8, 16 rows", 13, 512, 2048},
    {"by 4", 5, 2048, 1024},
    {"by 2", 30, 4096, 512},
    {"uneven shares of k", 3, 512, 1152},
    {"32 rows", 29, 192, 384},
    {"64 rows, more blocks than multiprocessors", 64, 9000, 1024},
    {"tiles of 64 rows, the last one not full", 150, 1000, 640},
    {"more k than stages", 7, 72, 8192},
    {"tiles of 256 outputs", 1100, 1280, 128},
    {"tiles of 256 outputs, rows not full, an odd tile alone", 1100, 1288, 640},
    {"many rows, few outputs", 6000, 256, 256},
};

TEST_F(LinearTest, Fp8WholeNumbersAreExact) {
  for (const Shape& shape : kFp8Shapes) {
    SCOPED_TRACE(absl::StrCat(shape.why, ": ", shape.rows, " x ", shape.k, " to ", shape.n));
    const TestWeights w(WeightFormat::kFp8, Kind::kWhole, shape.n, shape.k);
    const TestRows x(Kind::kWhole, shape.rows, shape.k);
    const std::vector<float> want =
        Product(x.Dequantised(), w.Decoded(), shape.rows, shape.n, shape.k);
    ExpectSame(Multiply<float>(w.matrix(), x.quantised()), want, shape.n);
    ExpectSame(FromBf16(Multiply<uint16_t>(w.matrix(), x.quantised())), FromBf16(ToBf16(want)),
               shape.n);
    if (HasFailure()) break;
  }
}

constexpr Shape kBf16Shapes[] = {
    {"one block of k", 8, 64, 64},
    {"a row, k shared by 8", 1, 512, 4096},
    {"k that ends inside of a block", 9, 72, 200},
    {"64 outputs, 64 rows", 64, 64, 1024},
    {"tiles of 256 outputs", 700, 2304, 320},
};

TEST_F(LinearTest, Bf16WholeNumbersAreExact) {
  for (const Shape& shape : kBf16Shapes) {
    SCOPED_TRACE(absl::StrCat(shape.why, ": ", shape.rows, " x ", shape.k, " to ", shape.n));
    const TestWeights w(WeightFormat::kBf16, Kind::kWhole, shape.n, shape.k);
    const TestRows x(Kind::kWhole, shape.rows, shape.k);
    const std::vector<float> want = Product(x.values(), w.Decoded(), shape.rows, shape.n, shape.k);
    ExpectSame(Multiply<float>(w.matrix(), x.bf16()), want, shape.n);
    ExpectSame(FromBf16(Multiply<uint16_t>(w.matrix(), x.bf16())), FromBf16(ToBf16(want)), shape.n);
    if (HasFailure()) break;
  }
}

// Each group of outputs takes its own columns of x.
TEST_F(LinearTest, GroupsTakeTheirColumns) {
  constexpr int64_t kN = 512, kK = 192, kGroups = 2;
  for (const int64_t rows : {3, 3000}) {
    const TestWeights w(WeightFormat::kBf16, Kind::kWhole, kN, kK);
    const TestRows x(Kind::kWhole, rows, kGroups * kK);
    const std::vector<float> decoded = w.Decoded();
    std::vector<float> want(static_cast<size_t>(rows * kN));
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t o = 0; o < kN; ++o) {
        const std::span<const float> columns(
            x.values().data() + r * kGroups * kK + o / (kN / kGroups) * kK, kK);
        const std::span<const float> row(decoded.data() + o * kK, kK);
        want[static_cast<size_t>(r * kN + o)] = Product(columns, row, 1, 1, kK)[0];
      }
    }
    Bf16Rows grouped = x.bf16();
    grouped.groups = kGroups;
    ExpectSame(Multiply<float>(w.matrix(), grouped), want, kN);
  }
}

// What lies between rows of y stays.
TEST_F(LinearTest, RowsOfYMayBeApart) {
  constexpr int64_t kN = 1280, kK = 256, kStride = kN + 16;
  const TestWeights w(WeightFormat::kFp8, Kind::kWhole, kN, kK);
  for (const int64_t rows : {5, 1200}) {
    const TestRows x(Kind::kWhole, rows, kK);
    const std::vector<uint16_t> want = Multiply<uint16_t>(w.matrix(), x.quantised());
    const auto y = Poisoned<uint16_t>(rows * kStride);
    ASSERT_EQ(Linear(nullptr, w.matrix(), x.quantised(), LinearOutput(y.get(), kStride)),
              absl::OkStatus());
    const std::vector<uint16_t> got = y.Read().value();
    for (int64_t r = 0; r < rows; ++r) {
      const auto row = got.begin() + r * kStride;
      ASSERT_TRUE(std::equal(row, row + kN, want.begin() + r * kN)) << "row " << r;
      ASSERT_EQ(std::count(row + kN, row + kStride, 0xffff), kStride - kN) << "row " << r;
    }
  }
}

TEST_F(LinearTest, ErrorsAreThoseOfTheTensorCores) {
  constexpr int64_t kRows = 40, kN = 512, kK = 4096;
  const TestRows x(Kind::kSpread, kRows, kK);
  const TestWeights fp8(WeightFormat::kFp8, Kind::kSpread, kN, kK);
  const double fp8_error = RelativeError(Multiply<float>(fp8.matrix(), x.quantised()),
                                         Product(x.Dequantised(), fp8.Decoded(), kRows, kN, kK));
  EXPECT_LT(fp8_error, 1e-3);
  const TestWeights bf16(WeightFormat::kBf16, Kind::kSpread, kN, kK);
  const double bf16_error = RelativeError(Multiply<float>(bf16.matrix(), x.bf16()),
                                          Product(x.values(), bf16.Decoded(), kRows, kN, kK));
  EXPECT_LT(bf16_error, 1e-5);
  std::printf("relative errors: FP8 %.2e, BF16 %.2e\n", fp8_error, bf16_error);
}

// Rows [first, first + rows) alone give the bits they have among all.
template <typename Rows, typename Part>
void ExpectNoCompany(const DeviceMatrix& w, const Rows& all, const Part& part_of) {
  const std::vector<uint16_t> whole = Multiply<uint16_t>(w, all);
  for (const auto& [first, rows] : std::vector<std::pair<int64_t, int64_t>>{{0, 1},
                                                                            {2049, 1},
                                                                            {8, 3},
                                                                            {0, 8},
                                                                            {17, 9},
                                                                            {100, 16},
                                                                            {7, 30},
                                                                            {256, 64},
                                                                            {64, 65},
                                                                            {1000, 300},
                                                                            {0, 2000}}) {
    SCOPED_TRACE(absl::StrCat("rows ", first, " and ", rows - 1, " more"));
    const std::vector<uint16_t> alone = Multiply<uint16_t>(w, part_of(first, rows));
    const std::vector<uint16_t> among(whole.begin() + first * w.n,
                                      whole.begin() + (first + rows) * w.n);
    EXPECT_TRUE(alone == among) << "relative difference "
                                << RelativeError(FromBf16(alone), FromBf16(among));
  }
}

TEST_F(LinearTest, ARowsBitsDoNotDependOnItsCompany) {
  constexpr int64_t kRows = 4096, kN = 1024, kK = 4096;
  const TestRows x(Kind::kSpread, kRows, kK);
  const TestWeights fp8(WeightFormat::kFp8, Kind::kSpread, kN, kK);
  std::vector<std::unique_ptr<DeviceBuffer<uint8_t>>> codes;
  std::vector<std::unique_ptr<DeviceBuffer<float>>> scales;
  ExpectNoCompany(fp8.matrix(), x.quantised(), [&](int64_t first, int64_t rows) {
    codes.push_back(std::make_unique<DeviceBuffer<uint8_t>>(Poisoned<uint8_t>(rows * kK)));
    scales.push_back(std::make_unique<DeviceBuffer<float>>(Poisoned<float>(ScaleCount(rows, kK))));
    const QuantisedRows part{codes.back()->get(), scales.back()->get(), rows, kK,
                             ScaleStride(rows)};
    EXPECT_EQ(QuantiseRows(nullptr, x.bf16().values + first * kK, nullptr, part), absl::OkStatus());
    return part;
  });
  const TestWeights bf16(WeightFormat::kBf16, Kind::kSpread, kN, kK);
  ExpectNoCompany(bf16.matrix(), x.bf16(), [&](int64_t first, int64_t rows) {
    return Bf16Rows{x.bf16().values + first * kK, rows, kK};
  });
}

TEST(LinearShapeTest, WhatCannotBeIsRefused) {
  alignas(16) static uint8_t bytes[64];
  alignas(16) static float floats[64];
  const DeviceMatrix w{WeightFormat::kFp8, 64, 128, 1, bytes, bytes};
  const QuantisedRows x{bytes, floats, 1, 128, 4};
  const LinearOutput y(floats, 64);
  const auto refused = [](const absl::Status& status) {
    return status.code() == absl::StatusCode::kInvalidArgument;
  };
  DeviceMatrix bad = w;
  bad.n = 60;
  EXPECT_TRUE(refused(Linear(nullptr, bad, x, y)));
  bad = w;
  bad.k = 64;
  EXPECT_TRUE(refused(Linear(nullptr, bad, x, y)));
  bad = w;
  bad.values = bytes + 1;
  EXPECT_TRUE(refused(Linear(nullptr, bad, x, y)));
  bad = w;
  bad.scales = nullptr;
  EXPECT_TRUE(refused(Linear(nullptr, bad, x, y)));
  EXPECT_TRUE(refused(Linear(nullptr, w, QuantisedRows{bytes, floats, 1, 256, 4}, y)));
  EXPECT_TRUE(refused(Linear(nullptr, w, x, LinearOutput(floats, 56))));
  EXPECT_TRUE(refused(Linear(nullptr, w, Bf16Rows{nullptr, 1, 128}, y)));
}

}  // namespace
}  // namespace cairn::kernels::cuda
