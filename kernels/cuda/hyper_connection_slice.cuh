// hyper_connection_slice.cuh: a warp's part of mixing residual streams: 64 channels of the four streams
// of 16 rows, in registers, and what fn has for them.
#ifndef CAIRN_KERNELS_CUDA_HYPER_CONNECTION_SLICE_CUH_
#define CAIRN_KERNELS_CUDA_HYPER_CONNECTION_SLICE_CUH_

#include "kernels/cuda/hyper_connection.h"
#include "kernels/cuda/row_math.cuh"

namespace cairn::kernels::cuda {

constexpr int kTileRows = 16;      // of a tensor core's product
constexpr int kSlice = 64;         // channels of all four streams that a warp has
constexpr int kUnits = kSlice / 32;  // a lane reads 8 channels of every 32
constexpr int kWarpsMax = 8;
constexpr int kRanksMax = 16;  // blocks of a cluster
constexpr int kFewTiles = 4;   // the next kernel may take its place beside so many

struct HcMixParams {
  HcWeights weights;
  HcShape shape;
  HcMerging merging;   // of what the sub-layer before made, if that is to be done first
  uint16_t* streams;  // written only if so
  uint16_t* x;
  float* post;
  float* comb;
};

// Eight channels of all streams: out[k] = post[k] * f + sum over j of comb[j][k] * old[j].
__device__ inline void MergeEight(const float* post, const float* comb, uint4 f,
                                  const uint4 (&old)[kHcStreams], uint4 (&out)[kHcStreams]) {
  float from[kHcStreams][8];
  float add[8];
  Unpack8(f, add);
#pragma unroll
  for (int j = 0; j < kHcStreams; ++j) Unpack8(old[j], from[j]);
#pragma unroll
  for (int k = 0; k < kHcStreams; ++k) {
    float v[8];
#pragma unroll
    for (int e = 0; e < 8; ++e) v[e] = post[k] * add[e];
#pragma unroll
    for (int j = 0; j < kHcStreams; ++j) {
#pragma unroll
      for (int e = 0; e < 8; ++e) v[e] = fmaf(comb[j * kHcStreams + k], from[j][e], v[e]);
    }
    out[k] = Pack8(v);
  }
}

// sum [16 x 8] += a [16 x 16] . b [16 x 8]
__device__ inline void Multiply(const uint32_t (&a)[4], uint32_t b0, uint32_t b1, float (&sum)[4]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Two values as two BF16 parts each: {the nearest, what is left of them}.
__device__ inline uint2 TwoParts(float a, float b) {
  const uint32_t nearest = PackBf16(a, b);
  return {nearest, PackBf16(a - Bf16Low(nearest), b - Bf16High(nearest))};
}

constexpr int kMergeFactors = kHcStreams + kHcStreams * kHcStreams;  // of a row: post, comb

// One warp's part of a tile of 16 rows: its slice of channels of all streams. Lane 4g + t holds of
// rows g and g + 8 the channels 8t to 8t + 7 of every 32. Both operands take the 16 places of a
// product's k from the lanes in this order, so the sum is over the same channels.
struct HcSlice {
  uint4 v[2][kUnits][kHcStreams];  // of row g, of row g + 8; zeros where there is no such row
  uint4 f[2][kUnits];              // what is to be merged into them
  int64_t row;                     // the lane's first
  int64_t channel;                 // the lane's first

  __device__ static int64_t Channel(int64_t slice, int lane) {
    return slice * kSlice + 8 * (lane % 4);
  }
  __device__ bool Has(const HcMixParams& p, int half) const {
    return row + 8 * half < p.shape.rows;
  }
  __device__ uint16_t* StreamAt(const HcMixParams& p, int half, int unit, int stream) const {
    return p.streams + ((row + 8 * half) * kHcStreams + stream) * p.shape.dim + channel + 32 * unit;
  }

  __device__ int64_t RowAt(const HcMixParams& p, int half, int unit) const {
    return (row + 8 * half) * p.shape.dim + channel + 32 * unit;
  }

  template <bool kMerge>
  __device__ void Load(const HcMixParams& p, int64_t first_row, int64_t slice, int lane) {
    row = first_row + lane / 4;
    channel = Channel(slice, lane);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int u = 0; u < kUnits; ++u) {
#pragma unroll
        for (int j = 0; j < kHcStreams; ++j) {
          v[half][u][j] = Has(p, half) ? *reinterpret_cast<const uint4*>(StreamAt(p, half, u, j))
                                       : uint4{0, 0, 0, 0};
        }
        if (kMerge && Has(p, half)) {
          f[half][u] = *reinterpret_cast<const uint4*>(p.merging.f + RowAt(p, half, u));
        }
      }
    }
  }

  // factors: [kTileRows][kMergeFactors]
  __device__ void Merge(const HcMixParams& p, const float* factors, int lane) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (!Has(p, half)) continue;
      const float* const of_row = factors + (lane / 4 + 8 * half) * kMergeFactors;
#pragma unroll
      for (int u = 0; u < kUnits; ++u) {
        uint4 merged[kHcStreams];
        MergeEight(of_row, of_row + kHcStreams, f[half][u], v[half][u], merged);
#pragma unroll
        for (int j = 0; j < kHcStreams; ++j) {
          v[half][u][j] = merged[j];
          *reinterpret_cast<uint4*>(StreamAt(p, half, u, j)) = merged[j];
        }
      }
    }
  }
};

__device__ inline void AddSquaresOf(uint4 eight, float& sum) {
  float v[8];
  Unpack8(eight, v);
  AddSquares(v, sum);
}

// A warp's slice of fn, in shared memory for as long as the block runs: each lane keeps what it will
// multiply with, in the order of use.
template <int kOutputs>
struct HcSliceWeights {
  static constexpr int kTiles = (kOutputs + 7) / 8;  // of 8 outputs
  static constexpr int kFragments = kHcStreams * kUnits * 2 * kTiles;
  uint4* lane_part;  // fragment i at [kLanes * i]: two parts of k = (0, 1), and of k = (8, 9)

  __device__ uint4& At(int j, int u, int step, int tile) const {
    return lane_part[kLanes * (((j * kUnits + u) * 2 + step) * kTiles + tile)];
  }

  __device__ void Load(const HcMixParams& p, int64_t channel, int lane) const {
#pragma unroll 2
    for (int j = 0; j < kHcStreams; ++j) {
#pragma unroll
      for (int u = 0; u < kUnits; ++u) {
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
          const int output = 8 * tile + lane / 4;
          float4 fn[2] = {};
          if (output < kOutputs) {
            const auto* at = reinterpret_cast<const float4*>(
                p.weights.fn + (output * kHcStreams + j) * p.shape.dim + channel + 32 * u);
            fn[0] = __ldg(at);
            fn[1] = __ldg(at + 1);
          }
#pragma unroll
          for (int step = 0; step < 2; ++step) {
            const uint2 low = TwoParts(fn[step].x, fn[step].y);
            const uint2 high = TwoParts(fn[step].z, fn[step].w);
            At(j, u, step, tile) = {low.x, low.y, high.x, high.y};
          }
        }
      }
    }
  }

  // sums[i] of outputs 8i to 8i + 7, squares of rows g and g + 8.
  __device__ void Sum(const HcSlice& s, float (&sums)[kTiles][4], float (&squares)[2]) const {
#pragma unroll
    for (int j = 0; j < kHcStreams; ++j) {
#pragma unroll
      for (int u = 0; u < kUnits; ++u) {
        const uint4 a = s.v[0][u][j];
        const uint4 b = s.v[1][u][j];
        AddSquaresOf(a, squares[0]);
        AddSquaresOf(b, squares[1]);
        const uint32_t rows[2][4] = {{a.x, b.x, a.y, b.y}, {a.z, b.z, a.w, b.w}};
#pragma unroll
        for (int step = 0; step < 2; ++step) {
#pragma unroll
          for (int tile = 0; tile < kTiles; ++tile) {
            const uint4 fn = At(j, u, step, tile);
            Multiply(rows[step], fn.x, fn.z, sums[tile]);
            Multiply(rows[step], fn.y, fn.w, sums[tile]);
          }
        }
      }
    }
#pragma unroll
    for (float& sum : squares) {
      sum += __shfl_xor_sync(kAllLanes, sum, 1);
      sum += __shfl_xor_sync(kAllLanes, sum, 2);
    }
  }
};

// All of the slice is asked for at once: with few rows, waiting for it is most of the time.
__device__ inline void PrefetchWeights(const HcMixParams& p, int outputs, int64_t slice, int lane) {
  constexpr int kLineFloats = 32;
  constexpr int kLines = kSlice / kLineFloats;
  for (int i = lane; i < outputs * kHcStreams * kLines; i += kLanes) {
    const float* at = p.weights.fn + i / kLines * p.shape.dim + slice * kSlice +
                      i % kLines * kLineFloats;
    asm volatile("prefetch.global.L2 [%0];" ::"l"(at));
  }
}

__device__ inline void LoadFactors(const HcMixParams& p, int64_t first_row, float* factors) {
  for (int i = threadIdx.x; i < kTileRows * kMergeFactors; i += blockDim.x) {
    const int64_t row = first_row + i / kMergeFactors;
    const int at = i % kMergeFactors;
    if (row >= p.shape.rows) continue;
    factors[i] = at < kHcStreams
                     ? p.merging.post[row * kHcStreams + at]
                     : p.merging.comb[row * kHcStreams * kHcStreams + at - kHcStreams];
  }
}

}  // namespace cairn::kernels::cuda

#endif  // CAIRN_KERNELS_CUDA_HYPER_CONNECTION_SLICE_CUH_
