// rows_reference.h: RMSNorm one scalar at a time, in the order of sums of the kernels over rows
// (row_math.cuh), for their tests to compare bits with.
//
// Threads: pure functions. Nothing here is for programs.
#ifndef CAIRN_KERNELS_CUDA_ROWS_REFERENCE_H_
#define CAIRN_KERNELS_CUDA_ROWS_REFERENCE_H_

#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

namespace cairn::kernels::cuda {

inline float SumSquaresByLanes(std::span<const float> x) {
  const size_t lanes = x.size() <= 1024 ? 32 : x.size() <= 4096 ? 128 : 256;
  std::vector<float> sums(lanes, 0.0f);
  for (size_t i = 0; i < x.size(); ++i) {
    float& sum = sums[i / 8 % lanes];
    sum = std::fma(x[i], x[i], sum);
  }
  float all = 0.0f;
  for (size_t warp = 0; warp < lanes; warp += 32) {
    for (size_t distance = 16; distance > 0; distance /= 2) {
      for (size_t i = 0; i < distance; ++i) sums[warp + i] += sums[warp + i + distance];
    }
    all = warp == 0 ? sums[0] : all + sums[warp];
  }
  return all;
}

// weight empty: none.
inline std::vector<float> RmsNormByLanes(std::span<const float> x, std::span<const float> weight,
                                         float eps) {
  const float mean = SumSquaresByLanes(x) / static_cast<float>(x.size());
  const float scale = 1.0f / std::sqrt(mean + eps);
  std::vector<float> out(x.begin(), x.end());
  for (size_t i = 0; i < out.size(); ++i) {
    out[i] *= scale;
    if (!weight.empty()) out[i] *= weight[i];
  }
  return out;
}

}  // namespace cairn::kernels::cuda

#endif  // CAIRN_KERNELS_CUDA_ROWS_REFERENCE_H_
