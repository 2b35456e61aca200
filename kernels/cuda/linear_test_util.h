// linear_test_util.h: made weights and rows for the tests of products, on both sides.
//
// Whole: small whole numbers (and halves) with scales of 1 to 4, whose products the tensor cores
// add exactly, so that a result is right to the bit or wrong. Spread: values as weights have them.
//
// Threads: one. Nothing here is for programs.
#ifndef CAIRN_KERNELS_CUDA_LINEAR_TEST_UTIL_H_
#define CAIRN_KERNELS_CUDA_LINEAR_TEST_UTIL_H_

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

#include "kernels/cuda/linear.h"
#include "kernels/cuda/packed_fp4.h"
#include "kernels/cuda/test_util.h"

namespace cairn::kernels::cuda {

enum class Kind { kWhole, kSpread };

template <typename T>
DeviceBuffer<T> OnDevice(const std::vector<T>& values) {
  return DeviceBuffer<T>::Of(values).value();
}

template <typename T>
DeviceBuffer<T> Poisoned(int64_t count) {
  auto buffer = DeviceBuffer<T>::Create(static_cast<size_t>(count)).value();
  EXPECT_TRUE(buffer.Fill(0xff).ok());
  return buffer;
}

// Weights [count, n, k], and what they decode to.
class TestWeights {
 public:
  TestWeights(WeightFormat format, Kind kind, int64_t n, int64_t k, int64_t count = 1,
              uint64_t seed = 3)
      : raw_{format, count * n, k, nullptr, nullptr} {
    SeededRandom random(seed);
    const auto scales_of = [&](int64_t scale_rows, int64_t group, int base, uint64_t spread) {
      scales_.resize(static_cast<size_t>(scale_rows * ((k + group - 1) / group)));
      for (uint8_t& s : scales_) {
        s = static_cast<uint8_t>(static_cast<uint64_t>(base) + random.Next() % spread);
      }
    };
    const int64_t values = count * n * k;
    const bool whole = kind == Kind::kWhole;
    switch (format) {
      case WeightFormat::kFp8:
        scales_of((count * n + 127) / 128, 128, whole ? 127 : 118, 3);
        for (int64_t i = 0; i < values; ++i) {
          values_.push_back(F32ToE4m3(Value(kind, random, 100.0f)));
        }
        break;
      case WeightFormat::kFp4:
        scales_of(count * n, 32, whole ? 127 : 113, whole ? 2 : 15);
        values_.resize(static_cast<size_t>(values / 2));
        random.Fill(values_);
        break;
      default:
        for (int64_t i = 0; i < values; ++i) {
          const uint16_t v = F32ToBf16(Value(kind, random, 1.0f));
          values_.push_back(static_cast<uint8_t>(v));
          values_.push_back(static_cast<uint8_t>(v >> 8));
        }
    }
    raw_.values = values_.data();
    raw_.scales = scales_.data();
    device_values_ = OnDevice(values_);
    if (!scales_.empty()) device_scales_ = OnDevice(scales_);
    if (format == WeightFormat::kFp4) Pack();
    matrix_ = {format, n, k, count, device_values_.get(), device_scales_.get()};
  }
  TestWeights(const TestWeights&) = delete;

  const DeviceMatrix& matrix() const { return matrix_; }
  std::vector<float> Decoded() const {
    std::vector<float> out;
    for (int64_t r = 0; r < raw_.rows; ++r) {
      for (int64_t k = 0; k < raw_.k; ++k) out.push_back(RawValue(raw_, r, k));
    }
    return out;
  }

  static float Value(Kind kind, SeededRandom& random, float scale) {
    if (kind == Kind::kWhole) return static_cast<float>(random.Next() % 9) - 4.0f;
    return (static_cast<float>(random.Next() >> 40) * 0x1p-24f - 0.5f) * scale;
  }

 private:
  void Pack() {
    const int64_t blocks = Fp4Blocks(raw_.rows, raw_.k);
    auto packed = Poisoned<uint8_t>(blocks * kFp4BlockBytes);
    auto block_scales = Poisoned<uint8_t>(blocks);
    const auto unfit = Poisoned<int32_t>(1);
    EXPECT_EQ(PackFp4(nullptr, device_values_.get(), device_scales_.get(), raw_.rows, raw_.k,
                      packed.get(), block_scales.get(), unfit.get()),
              absl::OkStatus());
    EXPECT_EQ(Fp4Fits(unfit.Read().value()[0]), absl::OkStatus());
    device_values_ = std::move(packed);
    device_scales_ = std::move(block_scales);
  }

  RawMatrix raw_;
  std::vector<uint8_t> values_, scales_;
  DeviceBuffer<uint8_t> device_values_, device_scales_;
  DeviceMatrix matrix_;
};

// Rows of BF16 values, and quantised; what both decode to.
class TestRows {
 public:
  TestRows(Kind kind, int64_t rows, int64_t k) : rows_(rows), k_(k) {
    SeededRandom random(4);
    for (int64_t i = 0; i < rows * k; ++i) {
      const float v = TestWeights::Value(kind, random, 3.0f);
      // Groups of other scales.
      const int64_t size = kind == Kind::kWhole ? i / kQuantGroup % 3 : 0;
      values_.push_back(v * static_cast<float>(1 << size));
    }
    Upload();
  }
  TestRows(std::vector<float> values, int64_t rows)
      : rows_(rows), k_(std::ssize(values) / rows), values_(std::move(values)) {
    Upload();
  }
  TestRows(const TestRows&) = delete;

  QuantisedRows quantised() const {
    return {codes_.get(), scales_.get(), rows_, k_, ScaleStride(rows_)};
  }
  Bf16Rows bf16() const { return {bf16_.get(), rows_, k_}; }
  const std::vector<float>& values() const { return values_; }
  std::vector<float> Dequantised() const {
    std::vector<float> out = values_;
    SimulateFp8(out, kQuantGroup);
    return out;
  }

 private:
  void Upload() {
    values_ = FromBf16(ToBf16(values_));
    bf16_ = OnDevice(ToBf16(values_));
    if (k_ % kQuantGroup != 0) return;
    codes_ = Poisoned<uint8_t>(rows_ * k_);
    scales_ = Poisoned<float>(ScaleCount(rows_, k_));
    EXPECT_EQ(QuantiseRows(nullptr, bf16_.get(), nullptr, quantised()), absl::OkStatus());
  }

  int64_t rows_, k_;
  std::vector<float> values_;
  DeviceBuffer<uint16_t> bf16_;
  DeviceBuffer<uint8_t> codes_;
  DeviceBuffer<float> scales_;
};

// y of one call, F32 or BF16.
template <typename Y, typename Rows>
std::vector<Y> Multiply(const DeviceMatrix& w, const Rows& x) {
  const auto y = Poisoned<Y>(x.rows * w.n);
  EXPECT_EQ(Linear(nullptr, w, x, LinearOutput(y.get(), w.n)), absl::OkStatus());
  return y.Read().value();
}

// y [rows, n] = x [rows, k] . w [n, k]^T in double, rounded once.
inline std::vector<float> Product(std::span<const float> x, std::span<const float> w, int64_t rows,
                                  int64_t n, int64_t k) {
  std::vector<float> y;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t o = 0; o < n; ++o) {
      const float* const from = x.data() + r * k;
      const float* const row = w.data() + o * k;
      double sums[8] = {};  // side by side, for speed
      for (int64_t i = 0; i < k; ++i) {
        sums[i % 8] += static_cast<double>(from[i]) * static_cast<double>(row[i]);
      }
      const double sum = std::accumulate(sums, sums + 8, 0.0);
      y.push_back(static_cast<float>(sum));
    }
  }
  return y;
}

// Equal, or the first few that are not.
inline void ExpectSame(const std::vector<float>& got, const std::vector<float>& want, int64_t n) {
  ASSERT_EQ(got.size(), want.size());
  int64_t wrong = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    if (got[i] == want[i]) continue;
    if (++wrong <= 8) {
      ADD_FAILURE() << "row " << static_cast<int64_t>(i) / n << " output "
                    << static_cast<int64_t>(i) % n << ": got " << got[i] << ", want " << want[i];
    }
  }
  EXPECT_EQ(wrong, 0) << "of " << got.size();
}

}  // namespace cairn::kernels::cuda

#endif  // CAIRN_KERNELS_CUDA_LINEAR_TEST_UTIL_H_
