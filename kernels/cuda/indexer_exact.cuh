// indexer_exact.cuh: scores in F32, in the CPU's order, of what e4m3 does not hold (indexer.h: wide
// rows and tokens).
//
// Device code only. Slow: about 3000 instructions a score.
#ifndef CAIRN_KERNELS_CUDA_INDEXER_EXACT_CUH_
#define CAIRN_KERNELS_CUDA_INDEXER_EXACT_CUH_

#include <cstdint>

#include "kernels/cuda/indexer.h"
#include "kernels/cuda/indexer_query.cuh"

namespace cairn::kernels::cuda {

__device__ inline float E2m1Value(uint32_t code) {
  const uint32_t magnitude = code & 7u;
  const float value = magnitude < 2 ? 0.5f * static_cast<float>(magnitude)
                                    : ldexpf(1.0f + 0.5f * static_cast<float>(magnitude & 1u),
                                             static_cast<int>(magnitude / 2) - 1);
  return (code & 8u) != 0 ? -value : value;
}

__device__ inline float Fp4Value(const uint8_t* data, const uint8_t* scales, int dim) {
  return E2m1Value(data[dim / 2] >> (dim % 2 * 4)) * IndexScale(scales[dim / 32]);
}

__device__ inline bool IsWide(const uint8_t* data, const uint8_t* scales) {
  const int most = max(max(scales[0], scales[1]), max(scales[2], scales[3]));
  bool wide = false;
  for (int c = 0; c < 4; ++c) {
    const uint4 codes = reinterpret_cast<const uint4*>(data)[c];
    wide |= most - scales[c] > kIndexShiftMax &&
            ((codes.x | codes.y | codes.z | codes.w) & 0x77777777u) != 0;
  }
  return wide;
}

// By a whole warp; two heads a lane, dims ascending, then heads ascending: as the CPU does.
__device__ inline float ExactScore(const PreparedIndexQuery& query, const uint8_t* data,
                                   const uint8_t* scales) {
  const int lane = threadIdx.x % 32;
  float products[2] = {0.0f, 0.0f};
  for (int dim = 0; dim < static_cast<int>(kIndexDim); ++dim) {
    const float key = Fp4Value(data, scales, dim);
    for (int i = 0; i < 2; ++i) {
      const int head = lane + 32 * i;
      const float q = Fp4Value(query.data + 64 * head, query.scales + 4 * head, dim);
      products[i] = fmaf(q, key, products[i]);
    }
  }
  float sum = 0.0f;
  for (int head = 0; head < kIndexHeads; ++head) {
    const float product =
        __shfl_sync(0xffffffffu, head < 32 ? products[0] : products[1], head % 32);
    sum = fmaf(query.weights[head], fmaxf(product, 0.0f), sum);
  }
  return sum;
}

}  // namespace cairn::kernels::cuda

#endif  // CAIRN_KERNELS_CUDA_INDEXER_EXACT_CUH_
