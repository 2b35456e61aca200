// hyper_connection_comb.cuh: comb of a row from its logits, by half a warp.
#ifndef CAIRN_KERNELS_CUDA_HYPER_CONNECTION_COMB_CUH_
#define CAIRN_KERNELS_CUDA_HYPER_CONNECTION_COMB_CUH_

#include "kernels/cuda/hyper_connection.h"
#include "kernels/cuda/row_math.cuh"

namespace cairn::kernels::cuda {

// c of 16 lanes: lane 4j + k of the half warp. Sums as the CPU's: over k or j ascending.
__device__ inline float SumOfFour(float v, int first, int stride) {
  float sum = __shfl_sync(kAllLanes, v, first);
#pragma unroll
  for (int i = 1; i < kHcStreams; ++i) sum += __shfl_sync(kAllLanes, v, first + i * stride);
  return sum;
}

// The 39 divisions follow one another and even out their own errors: the fast one, within 2 ulp.
__device__ inline float Sinkhorn(float c, int lane, int iterations, float eps) {
  const int row = lane / 4 * 4;
  const int column = lane / 16 * 16 + lane % 4;
  const float top = fmaxf(c, __shfl_xor_sync(kAllLanes, c, 1));
  c = Exp(c - fmaxf(top, __shfl_xor_sync(kAllLanes, top, 2)));
  c = c / SumOfFour(c, row, 1) + eps;
  c = __fdividef(c, SumOfFour(c, column, 4) + eps);
  for (int i = 1; i < iterations; ++i) {
    c = __fdividef(c, SumOfFour(c, row, 1) + eps);
    c = __fdividef(c, SumOfFour(c, column, 4) + eps);
  }
  return c;
}

// Half a warp for a row, of logits where comb is to be.
__device__ inline void FinishRow(const HcShape& shape, bool has, int64_t row, float* comb) {
  const int lane = threadIdx.x % kLanes;
  float* const at = comb + row * kHcStreams * kHcStreams + lane % 16;
  const float c =
      Sinkhorn(has ? *at : 0.0f, lane, shape.sinkhorn_iterations, shape.hc_eps);
  if (has) *at = c;
}

}  // namespace cairn::kernels::cuda

#endif  // CAIRN_KERNELS_CUDA_HYPER_CONNECTION_COMB_CUH_
