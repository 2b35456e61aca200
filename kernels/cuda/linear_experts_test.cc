// Products of rows that go to different experts: each as its expert's Linear alone gives it, to the
// bit.
#include "absl/strings/str_cat.h"
#include "kernels/cuda/linear_test_util.h"

namespace cairn::kernels::cuda {
namespace {

class LinearExpertsTest : public DeviceTest {};

std::vector<int32_t> OffsetsOf(const std::vector<int64_t>& counts) {
  std::vector<int32_t> offsets = {0};
  for (const int64_t count : counts) {
    offsets.push_back(offsets.back() + static_cast<int32_t>(count));
  }
  return offsets;
}

// A row more than offsets say is there: it must be left alone.
void ExpectAsAlone(WeightFormat format, const std::vector<int64_t>& counts, int64_t n, int64_t k) {
  const int64_t experts = std::ssize(counts);
  const std::vector<int32_t> offsets = OffsetsOf(counts);
  const int64_t rows = offsets.back() + 1;
  const TestWeights w(format, Kind::kSpread, n, k, experts);
  const TestRows x(Kind::kSpread, rows, k);
  const auto device_offsets = OnDevice(offsets);
  const auto scratch = Poisoned<uint8_t>(ExpertScratchBytes(rows, experts));
  const ExpertRows sorted{device_offsets.get(), experts, rows, scratch.get()};
  const auto y = Poisoned<uint16_t>(rows * n);
  ASSERT_EQ(CutExpertRows(nullptr, sorted), absl::OkStatus());
  ASSERT_EQ(ExpertLinear(nullptr, w.matrix(), x.quantised(), sorted, LinearOutput(y.get(), n)),
            absl::OkStatus());
  const std::vector<uint16_t> got = y.Read().value();
  for (int64_t e = 0; e < experts; ++e) {
    if (counts[static_cast<size_t>(e)] == 0) continue;
    DeviceMatrix one = w.matrix();
    one.count = 1;
    const int64_t block_rows = format == WeightFormat::kFp4 ? 64 : 128;
    one.values += e * (format == WeightFormat::kFp4 ? Fp4Blocks(n, k) * kFp4BlockBytes : n * k);
    one.scales += e * (n / block_rows) * (k / 128);
    const int32_t begin = offsets[static_cast<size_t>(e)],
                  end = offsets[static_cast<size_t>(e) + 1];
    const std::vector<uint16_t> all = Multiply<uint16_t>(one, x.quantised());
    EXPECT_TRUE(std::equal(got.begin() + begin * n, got.begin() + end * n, all.begin() + begin * n))
        << "expert " << e << " of rows " << begin << " to " << end;
  }
  EXPECT_EQ(std::count(got.end() - n, got.end(), 0xffff), n);
}

TEST_F(LinearExpertsTest, RowsAreAsTheirExpertAloneGivesThem) {
  for (const WeightFormat format : {WeightFormat::kFp8, WeightFormat::kFp4}) {
    SCOPED_TRACE(format == WeightFormat::kFp8 ? "FP8" : "FP4");
    // A token's decoding step; some tokens'; a prefill, evenly and unevenly routed.
    ExpectAsAlone(format, {0, 1, 0, 0, 1, 1, 0, 1, 0, 0, 0, 1, 0, 0, 1, 0}, 256, 512);
    ExpectAsAlone(format, {0, 5, 0, 17, 1, 140, 0, 30}, 384, 256);
    ExpectAsAlone(format, {20, 33, 8, 1}, 128, 384);
    ExpectAsAlone(format, {0, 300, 129, 1, 128, 0, 500, 64}, 640, 384);
  }
}

TEST(LinearExpertsShapeTest, WhatCannotBeIsRefused) {
  alignas(16) static uint8_t bytes[64];
  alignas(16) static float floats[64];
  static const int32_t offsets[2] = {};
  const DeviceMatrix w{WeightFormat::kFp8, 128, 128, 1, bytes, bytes};
  const QuantisedRows x{bytes, floats, 1, 128, 4};
  const LinearOutput y(floats, 128);
  const auto refused = [](const absl::Status& status) {
    return status.code() == absl::StatusCode::kInvalidArgument;
  };
  EXPECT_TRUE(refused(CutExpertRows(nullptr, ExpertRows{offsets, 2000, 1, bytes})));
  EXPECT_TRUE(refused(CutExpertRows(nullptr, ExpertRows{nullptr, 1, 1, bytes})));
  EXPECT_TRUE(refused(ExpertLinear(nullptr, w, x, ExpertRows{offsets, 2, 1, bytes}, y)));
  EXPECT_TRUE(refused(ExpertLinear(nullptr, w, x, ExpertRows{offsets, 1, 2, bytes}, y)));
  EXPECT_TRUE(refused(ExpertLinear(nullptr, w, x, ExpertRows{offsets, 1, 1, nullptr}, y)));
}

}  // namespace
}  // namespace cairn::kernels::cuda
