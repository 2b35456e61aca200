// linear_rows.cuh: what a warpgroup of consumers does where 64 rows of x are the products' A and
// kRowsOutputs outputs are B: adding a part to the sums, and rounding sums away.
//
// A thread has two rows, so two scales serve for all that it adds. Sums are held as wgmma.cuh says:
// thread t of the warpgroup has rows 16 (t / 32) + l / 4 (+ 8), outputs 8 j + 2 (l % 4) (+ 1). The
// tensor cores add up an output's products in the same order whichever operand comes first, so that
// its bits are those of linear_parts.cuh.
#ifndef CAIRN_KERNELS_CUDA_LINEAR_ROWS_CUH_
#define CAIRN_KERNELS_CUDA_LINEAR_ROWS_CUH_

#include "kernels/cuda/linear_parts.cuh"

namespace cairn::kernels::cuda::internal {

constexpr int kRowsOutputs = 128;
using RowsSums = float[kRowsOutputs / 2];

// A thread's first row among its warp's 16; the other one is 8 behind.
__device__ inline int32_t RowOfLane() { return static_cast<int32_t>(threadIdx.x % 32 / 4); }

// sum = fma(part, scale of the row, sum).
__device__ inline void AddRows(RowsSums& sum, const RowsSums& part, float scale,
                               float scale_8_behind) {
#pragma unroll
  for (int i = 0; i < kRowsOutputs / 2; ++i) {
    sum[i] = fmaf(part[i], i / 2 % 2 == 0 ? scale : scale_8_behind, sum[i]);
  }
}

// do(row, output, i): each of the warp's places inside of y, of sums i and i + 1. `to.row`: the
// warp's first.
template <class Do>
__device__ void ForEachPairOfRows(const Target& to, const Do& what) {
#pragma unroll
  for (int i = 0; i < kRowsOutputs / 2; i += 2) {
    const int32_t row = to.row + RowOfLane() + i / 2 % 2 * 8;
    const int32_t output = to.output + i / 4 * 8 + static_cast<int32_t>(threadIdx.x % 4) * 2;
    if (row < to.rows_end && output < to.outputs_end) what(row, output, i);
  }
}

__device__ inline void StoreRowsF32(const RowsSums& sum, const Target& to) {
  ForEachPairOfRows(to, [&](int32_t row, int32_t output, int i) {
    *reinterpret_cast<float2*>(static_cast<float*>(to.y) + row * to.stride + output) = {sum[i],
                                                                                        sum[i + 1]};
  });
}

// By a warp for itself, through `staging` (kRowsStaging bytes of shared memory at a multiple of
// 1024, its own): boxes of 16 rows x 64 outputs, which the copy engine takes from there, beside the
// products that follow. But rows that end within y (`whole` is false) go as they are.
constexpr int kRowsStaging = 16 * kRowsOutputs * 2;
__device__ inline void StoreRowsBf16(const RowsSums& sum, const Target& to, const TensorMap& y_map,
                                     bool whole, uint32_t staging) {
  if (!whole) {
    ForEachPairOfRows(to, [&](int32_t row, int32_t output, int i) {
      uint16_t* const y = static_cast<uint16_t*>(to.y) + row * to.stride + output;
      *reinterpret_cast<uint32_t*>(y) = PackBf16(sum[i], sum[i + 1]);
    });
    return;
  }
  const uint32_t lane = threadIdx.x % 32;
  if (lane == 0) WaitForStores();
  __syncwarp();  // what was staged before this has been read
#pragma unroll
  for (uint32_t j = 0; j < kRowsOutputs / 8; j += 2) {
    const uint32_t row = lane % 16;
    const uint32_t piece = j % 8 + lane / 16;
    const uint32_t box = j / 8 * (kRowsStaging / 2);
    StoreMatrices(staging + box + row * 128 + (piece ^ row % 8) * 16,
                  PackBf16(sum[4 * j], sum[4 * j + 1]), PackBf16(sum[4 * j + 2], sum[4 * j + 3]),
                  PackBf16(sum[4 * j + 4], sum[4 * j + 5]),
                  PackBf16(sum[4 * j + 6], sum[4 * j + 7]));
  }
  FenceForCopies();
  __syncwarp();
  if (lane == 0) {
    StoreBox(y_map, staging, to.output, to.row);
    StoreBox(y_map, staging + kRowsStaging / 2, to.output + kRowsOutputs / 2, to.row);
  }
}

}  // namespace cairn::kernels::cuda::internal

#endif  // CAIRN_KERNELS_CUDA_LINEAR_ROWS_CUH_
