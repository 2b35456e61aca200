// test_util.h: what the device tests share: skipping where there is no GPU, made inputs, distances.
//
// Threads: one. Nothing here is for programs.
#ifndef CAIRN_KERNELS_CUDA_TEST_UTIL_H_
#define CAIRN_KERNELS_CUDA_TEST_UTIL_H_

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/cpu/formats.h"
#include "kernels/cuda/device.h"
#include "store/base/random.h"

namespace cairn::kernels::cuda {

// A test that needs the GPU: skipped, with the reason, where there is none.
class DeviceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const absl::Status present = DevicePresent(); !present.ok()) {
      GTEST_SKIP() << present.message();
    }
  }
};

// Uniform in [-scale/2, scale/2).
inline std::vector<float> RandomFloats(size_t count, uint64_t seed, float scale = 1.0f) {
  SeededRandom random(seed);
  std::vector<float> values(count);
  for (float& v : values) {
    v = (static_cast<float>(random.Next() >> 40) * 0x1p-24f - 0.5f) * scale;
  }
  return values;
}

inline std::vector<uint16_t> ToBf16(std::span<const float> values) {
  std::vector<uint16_t> out;
  out.reserve(values.size());
  for (const float v : values) out.push_back(F32ToBf16(v));
  return out;
}

inline std::vector<float> FromBf16(std::span<const uint16_t> values) {
  std::vector<float> out;
  out.reserve(values.size());
  for (const uint16_t v : values) out.push_back(Bf16ToF32(v));
  return out;
}

// ||got - want|| / ||want||; a NaN anywhere gives NaN, which passes no bound.
inline double RelativeError(std::span<const float> got, std::span<const float> want) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    const double d = static_cast<double>(got[i]) - static_cast<double>(want[i]);
    difference += d * d;
    norm += static_cast<double>(want[i]) * static_cast<double>(want[i]);
  }
  return std::sqrt(difference / norm);
}

}  // namespace cairn::kernels::cuda

#endif  // CAIRN_KERNELS_CUDA_TEST_UTIL_H_
