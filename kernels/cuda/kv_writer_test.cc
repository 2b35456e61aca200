// Goal: a row's bytes are those that RowCodec makes of the row normalised in the written order and
// rotated by the CPU, at its place and nowhere else. Method: the whole pool is compared.
#include "kernels/cuda/kv_writer.h"

#include <cstring>

#include "kernels/cpu/kv_rows.h"
#include "kernels/cpu/rope.h"
#include "kernels/cuda/rows_reference.h"
#include "kernels/cuda/test_util.h"

namespace cairn::kernels::cuda {
namespace {

constexpr float kEps = 1e-6f;
constexpr size_t kDim = 512;
constexpr size_t kPoolRows = 40;

TEST(KvWriterRefuseTest, NegativeCount) {
  EXPECT_EQ(
      WriteKvRows(nullptr, static_cast<float*>(nullptr), nullptr, nullptr, nullptr, -1, kEps, {})
          .code(),
      absl::StatusCode::kInvalidArgument);
}

class KvWriterTest : public DeviceTest {
 protected:
  // Groups of every size, among them zeros and negative zeros; a row of zeros.
  std::vector<float> MadeWeight() {
    std::vector<float> weight = RandomFloats(kDim, 2, 2.0f);
    for (size_t i = 0; i < kDim; ++i) {
      weight[i] = std::ldexp(weight[i], static_cast<int>(i / 50 * 3) - 15);
      if (i % 17 == 0) weight[i] = 0.0f;
    }
    return FromBf16(ToBf16(weight));
  }

  template <typename In>
  void ExpectRows(const std::vector<In>& x, const std::vector<float>& values) {
    const std::vector<int64_t> rows = {3, -1, 39, 0, 17, 128 - 100, 5};
    const std::vector<float> weight = MadeWeight();
    std::vector<int32_t> positions;
    std::vector<float> angles(rows.size() * 64);
    const RopeTable rope({});
    for (size_t i = 0; i < rows.size(); ++i) {
      rope.Angles(static_cast<int64_t>(i * 1000 + 7), angles.data() + i * 64);
    }
    std::vector<uint8_t> want_data(kPoolRows * 576, 0xa5);
    std::vector<uint8_t> want_scales(kPoolRows * 8, 0xa5);
    const RowCodec codec(RowEncoding::kFp8Bf16, kDim, 64);
    for (size_t i = 0; i < rows.size(); ++i) {
      if (rows[i] < 0) continue;
      std::vector<float> row =
          RmsNormByLanes(std::span(values).subspan(i * kDim, kDim), weight, kEps);
      Rotate(row.data() + kDim - 64, angles.data() + i * 64, 64, false);
      codec.Encode(row.data(), want_data.data() + rows[i] * 576, want_scales.data() + rows[i] * 8);
    }
    const auto input = DeviceBuffer<In>::Of(x).value();
    const auto device_weight = DeviceBuffer<uint16_t>::Of(ToBf16(weight)).value();
    const auto device_angles = DeviceBuffer<float>::Of(angles).value();
    const auto device_rows = DeviceBuffer<int64_t>::Of(rows).value();
    auto data = DeviceBuffer<uint8_t>::Create(want_data.size()).value();
    auto scales = DeviceBuffer<uint8_t>::Create(want_scales.size()).value();
    ASSERT_TRUE(data.Fill(0xa5).ok() && scales.Fill(0xa5).ok());
    ASSERT_TRUE(WriteKvRows(nullptr, input.get(), device_weight.get(), device_angles.get(),
                            device_rows.get(), std::ssize(rows), kEps, {data.get(), scales.get()})
                    .ok());
    const std::vector<uint8_t> got = data.Read().value();
    for (size_t i = 0, shown = 0; i < got.size() && shown < 4; ++i) {
      if (got[i] == want_data[i]) continue;
      ++shown;
      ADD_FAILURE() << "row " << i / 576 << ", byte " << i % 576 << ": " << int{got[i]} << ", not "
                    << int{want_data[i]};
    }
    EXPECT_EQ(scales.Read().value(), want_scales);
  }
};

TEST_F(KvWriterTest, RowsAreTheCodecsBytesAtTheirPlaces) {
  std::vector<float> x = RandomFloats(7 * kDim, 1, 6.0f);
  std::fill_n(x.begin() + 4 * kDim, kDim, 0.0f);
  ExpectRows<float>(x, x);
  const std::vector<uint16_t> halves = ToBf16(x);
  ExpectRows<uint16_t>(halves, FromBf16(halves));
}

}  // namespace
}  // namespace cairn::kernels::cuda
