// attention_parts.cuh: what both ways of attention.h do alike, and so to the same bits: a block's
// scores to probabilities, and fragments of outputs to memory.
#ifndef CAIRN_KERNELS_CUDA_ATTENTION_PARTS_CUH_
#define CAIRN_KERNELS_CUDA_ATTENTION_PARTS_CUH_

#include <cfloat>
#include <cstdint>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_mma.cuh"
#include "kernels/cuda/attention_rows.cuh"

namespace cairn::kernels::cuda::attention {

using namespace mma;  // NOLINT(google-build-using-namespace): its only users

inline constexpr float kLog2E = 1.4426950408889634f;
inline constexpr float kScoreScale = 0.04419417382415922f * kLog2E;  // 512^-0.5, for powers of two

// ---- queries ----

// Asks for an item's queries, 64 KB in a row in memory, by one warpgroup; cp.async's.
__device__ inline void LoadQueries(const AttentionBatch& batch, const Item& item,
                                   const uint8_t* queries) {
  const int thread = threadIdx.x % kGroupThreads;
  const uint16_t* from = batch.q + item.Row(batch) * kAttentionDim + thread % 64 * 8;
  // Thread t brings 16-byte chunk t % 64 of rows t / 64, + 2, ...
  const uint32_t tile = SharedAddress(queries) + thread % 64 / 8 * kTileBytes;
  for (int row = thread / 64; row < kHeadBlock; row += 2) {
    LoadAsync16(tile + row * 128 + (thread % 8 ^ row % 8) * 16, from + row * kAttentionDim);
  }
}

// What this thread asked for is there, for products that follow a barrier.
__device__ inline void FinishLoads() {
  asm volatile("cp.async.wait_all;" ::: "memory");
  FenceForProducts();
}

// scores [64 heads, 64 rows] of the rows at `rows`.
__device__ inline void MakeScores(float (&scores)[32], const Operand& queries, uint32_t rows) {
  const Operand keys = Operand::AlongRows(rows);
  WgmmaFence();
#pragma unroll
  for (int k = 0; k < kAttentionDim / 16; ++k) {
    const uint32_t at = k / 4 * kTileBytes + k % 4 * 32;
    MultiplyScores(scores, queries.At(at), keys.At(at), k > 0);
  }
  FinishProducts(scores);
}

// ---- probabilities ----

// Of one row's four lanes.
__device__ inline float QuadMax(float v) {
  v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 1));
  return fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 2));
}
__device__ inline float QuadSum(float v) {
  v += __shfl_xor_sync(0xffffffffu, v, 1);
  return v + __shfl_xor_sync(0xffffffffu, v, 2);
}

// What a thread knows of its two rows (heads).
struct Softmax {
  float top[2] = {-FLT_MAX, -FLT_MAX};
  float sum[2] = {0, 0};  // this lane's part

  // Scores of a block of which the first `valid` columns count become probabilities; returns the
  // factors of what was summed before.
  __device__ float2 Add(float (&scores)[32], int valid, uint32_t (&probabilities)[16]) {
    if (valid < kBlockRows) {
#pragma unroll
      for (int i = 0; i < 32; ++i) {
        const int column = i / 4 * 8 + threadIdx.x % 4 * 2 + i % 2;
        if (column >= valid) scores[i] = -INFINITY;
      }
    }
    float factors[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float most = top[r];
#pragma unroll
      for (int i = 2 * r; i < 32; i += 4) most = fmaxf(most, fmaxf(scores[i], scores[i + 1]));
      most = QuadMax(most);
      factors[r] = Exp2((top[r] - most) * kScoreScale);
      top[r] = most;
      const float shift = -(most * kScoreScale);
      float added = 0;
#pragma unroll
      for (int i = 2 * r; i < 32; i += 4) {
        const float p0 = Exp2(fmaf(scores[i], kScoreScale, shift));
        const float p1 = Exp2(fmaf(scores[i + 1], kScoreScale, shift));
        added += p0 + p1;
        probabilities[i / 2] = PackBf16(p0, p1);
      }
      sum[r] = fmaf(sum[r], factors[r], added);
    }
    return {factors[0], factors[1]};
  }

  // 1 / denominator of row r.
  __device__ float Inverse(int r, float sink) const {
    return 1.0f / (QuadSum(sum[r]) + Exp2(fmaf(sink, kLog2E, -(top[r] * kScoreScale))));
  }
};

// ---- output ----

// Output row l / 4 times factors.x, row l / 4 + 8 times factors.y (of each warp's 16).
template <int kCount>
__device__ inline void ScaleRows(float (&output)[kCount], float2 factors) {
  // A factor of 1 changes no bit: the maximum seldom moves after the first blocks.
  if (!__any_sync(0xffffffffu, factors.x != 1.0f || factors.y != 1.0f)) return;
#pragma unroll
  for (int i = 0; i < kCount; i += 4) {
    output[i] *= factors.x, output[i + 1] *= factors.x;
    output[i + 2] *= factors.y, output[i + 3] *= factors.y;
  }
}

// 64 dims, from column 8 kTile of the fragments on, turned back.
template <int kTile, int kCount>
__device__ inline void TurnBack(float (&output)[kCount], const float2* angles) {
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const float2 angle = angles[4 * i + threadIdx.x % 4];
    float* const d = output + 4 * (kTile + i);
#pragma unroll
    for (int e = 0; e < 4; e += 2) {
      const float a = d[e], b = d[e + 1];
      d[e] = fmaf(a, angle.x, b * angle.y);
      d[e + 1] = fmaf(b, angle.x, -(a * angle.y));
    }
  }
}

// To 2 kCount dims of this warp's 16 rows, the first at `out`.
template <int kCount>
__device__ inline void StoreOutput(const float (&output)[kCount], uint16_t* out) {
  const int lane = threadIdx.x % 32;
  out += lane / 4 * kAttentionDim + lane % 4 * 8;
#pragma unroll
  for (int i = 0; i < kCount; i += 16) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float* const d = output + i + 2 * half;
      const uint4 v = TransposeQuad(PackBf16(d[0], d[1]), PackBf16(d[4], d[5]),
                                    PackBf16(d[8], d[9]), PackBf16(d[12], d[13]));
      *reinterpret_cast<uint4*>(out + half * 8 * kAttentionDim + 2 * i) = v;
    }
  }
}

}  // namespace cairn::kernels::cuda::attention

#endif  // CAIRN_KERNELS_CUDA_ATTENTION_PARTS_CUH_
