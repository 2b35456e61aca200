#include "kernels/cuda/hyper_connection.h"

#include <cooperative_groups.h>

#include "kernels/cuda/row_math.cuh"

namespace cairn::kernels::cuda {
namespace {

namespace cg = cooperative_groups;

constexpr int kTileRows = 16;      // of a tensor core's product
constexpr int kSlice = 64;         // channels of all four streams that a warp has
constexpr int kUnits = kSlice / 32;  // a lane reads 8 channels of every 32
constexpr int kWarpsMax = 16;
constexpr int kRanksMax = 8;  // blocks of a cluster

struct MixParams {
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

// The bits of two F32 values' upper halves, `a` below. As BF16, cut towards zero.
__device__ inline uint32_t UpperHalves(float a, float b) {
  return __byte_perm(__float_as_uint(a), __float_as_uint(b), 0x7632);
}
__device__ inline float WithoutUpperHalf(float v) {
  return v - __uint_as_float(__float_as_uint(v) & 0xffff0000u);
}

// sum [16 x 8] += a [16 x 16] . b [16 x 8]
__device__ inline void Multiply(const uint32_t (&a)[4], uint32_t b0, uint32_t b1, float (&sum)[4]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// The same with b in F32: two values of each half, k = (0, 1) and (8, 9) of the lane's.
__device__ inline void MultiplyF32(const uint32_t (&a)[4], float4 b, float (&sum)[4]) {
#pragma unroll
  for (int part = 0; part < 3; ++part) {
    Multiply(a, UpperHalves(b.x, b.y), UpperHalves(b.z, b.w), sum);
    b = {WithoutUpperHalf(b.x), WithoutUpperHalf(b.y), WithoutUpperHalf(b.z),
         WithoutUpperHalf(b.w)};
  }
}

constexpr int kMergeFactors = kHcStreams + kHcStreams * kHcStreams;  // of a row: post, comb

// One warp's part of a tile of 16 rows: its slice of channels of all streams. Lane 4g + t holds of
// rows g and g + 8 the channels 8t to 8t + 7 of every 32. Both operands take the 16 places of a
// product's k from the lanes in this order, so the sum is over the same channels.
struct Slice {
  uint4 v[2][kUnits][kHcStreams];  // of row g, of row g + 8; zeros where there is no such row
  int64_t row;                     // the lane's first
  int64_t channel;                 // the lane's first

  __device__ bool Has(const MixParams& p, int half) const {
    return row + 8 * half < p.shape.rows;
  }
  __device__ uint16_t* StreamAt(const MixParams& p, int half, int unit, int stream) const {
    return p.streams + ((row + 8 * half) * kHcStreams + stream) * p.shape.dim + channel + 32 * unit;
  }

  __device__ void Load(const MixParams& p, int64_t first_row, int64_t slice, int lane) {
    row = first_row + lane / 4;
    channel = slice * kSlice + 8 * (lane % 4);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int u = 0; u < kUnits; ++u) {
#pragma unroll
        for (int j = 0; j < kHcStreams; ++j) {
          v[half][u][j] = Has(p, half) ? *reinterpret_cast<const uint4*>(StreamAt(p, half, u, j))
                                       : uint4{0, 0, 0, 0};
        }
      }
    }
  }

  // factors: [kTileRows][kMergeFactors]
  __device__ void Merge(const MixParams& p, const float* factors, int lane) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (!Has(p, half)) continue;
      const float* const of_row = factors + (lane / 4 + 8 * half) * kMergeFactors;
#pragma unroll
      for (int u = 0; u < kUnits; ++u) {
        const uint16_t* const f =
            p.merging.f + (row + 8 * half) * p.shape.dim + channel + 32 * u;
        uint4 merged[kHcStreams];
        MergeEight(of_row, of_row + kHcStreams, *reinterpret_cast<const uint4*>(f), v[half][u],
                   merged);
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

// sums[i] of outputs 8i to 8i + 7, squares of rows g and g + 8.
template <int kTiles, int kOutputs>
__device__ inline void SumSlice(const MixParams& p, const Slice& s, int lane,
                                float (&sums)[kTiles][4], float (&squares)[2]) {
  const int64_t dim = p.shape.dim;
#pragma unroll
  for (int j = 0; j < kHcStreams; ++j) {
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      const uint4 a = s.v[0][u][j];
      const uint4 b = s.v[1][u][j];
      AddSquaresOf(a, squares[0]);
      AddSquaresOf(b, squares[1]);
      const uint32_t first[4] = {a.x, b.x, a.y, b.y};
      const uint32_t second[4] = {a.z, b.z, a.w, b.w};
#pragma unroll
      for (int i = 0; i < kTiles; ++i) {
        const int output = 8 * i + lane / 4;
        float4 fn[2] = {{0, 0, 0, 0}, {0, 0, 0, 0}};
        if (output < kOutputs) {
          const auto* at = reinterpret_cast<const float4*>(
              p.weights.fn + (output * kHcStreams + j) * dim + s.channel + 32 * u);
          fn[0] = __ldg(at);
          fn[1] = __ldg(at + 1);
        }
        MultiplyF32(first, fn[0], sums[i]);
        MultiplyF32(second, fn[1], sums[i]);
      }
    }
  }
#pragma unroll
  for (float& sum : squares) {
    sum += __shfl_xor_sync(kAllLanes, sum, 1);
    sum += __shfl_xor_sync(kAllLanes, sum, 2);
  }
}

__device__ inline void LoadFactors(const MixParams& p, int64_t first_row, float* factors) {
  for (int i = threadIdx.x; i < kTileRows * kMergeFactors; i += blockDim.x) {
    const int64_t row = first_row + i / kMergeFactors;
    const int at = i % kMergeFactors;
    if (row >= p.shape.rows) continue;
    factors[i] = at < kHcStreams
                     ? p.merging.post[row * kHcStreams + at]
                     : p.merging.comb[row * kHcStreams * kHcStreams + at - kHcStreams];
  }
}

// Where few tiles run, the weights come from memory: all of them are asked for at once.
__device__ inline void PrefetchWeights(const MixParams& p, int outputs, int64_t slice, int lane) {
  constexpr int kLineFloats = 32;
  constexpr int kLines = kSlice / kLineFloats;
  for (int i = lane; i < outputs * kHcStreams * kLines; i += kLanes) {
    const float* at = p.weights.fn + i / kLines * p.shape.dim + slice * kSlice +
                      i % kLines * kLineFloats;
    asm volatile("prefetch.global.L2 [%0];" ::"l"(at));
  }
}

// c of 16 lanes: lane 4j + k of the half warp. Sums as the CPU's: over k or j ascending.
__device__ inline float SumOfFour(float v, int first, int stride) {
  float sum = __shfl_sync(kAllLanes, v, first);
#pragma unroll
  for (int i = 1; i < kHcStreams; ++i) sum += __shfl_sync(kAllLanes, v, first + i * stride);
  return sum;
}

__device__ inline float Sinkhorn(float c, int lane, int iterations, float eps) {
  const int row = lane / 4 * 4;
  const int column = lane / 16 * 16 + lane % 4;
  const float top = fmaxf(c, __shfl_xor_sync(kAllLanes, c, 1));
  c = Exp(c - fmaxf(top, __shfl_xor_sync(kAllLanes, top, 2)));
  c = c / SumOfFour(c, row, 1) + eps;
  c /= SumOfFour(c, column, 4) + eps;
  for (int i = 1; i < iterations; ++i) {
    c /= SumOfFour(c, row, 1) + eps;
    c /= SumOfFour(c, column, 4) + eps;
  }
  return c;
}

// A cluster has 16 rows, each of its blocks an equal part of the channels, each warp a slice.
// kOutputs: 24 of a sub-layer, 4 of a head.
template <int kOutputs, bool kMerge>
__global__ void __launch_bounds__(kWarpsMax* kLanes) HcMixKernel(const MixParams p) {
  constexpr int kTiles = (kOutputs + 7) / 8;
  constexpr int kSquares = kOutputs;  // the column of the sum of squares
  constexpr int kColumns = kOutputs + 1;
  // [kTileRows, kColumns] each
  __shared__ float of_warp[kWarpsMax][kTileRows * kColumns];
  __shared__ float of_block[kTileRows * kColumns];
  __shared__ float mix[kTileRows * kColumns];
  __shared__ float pre[kTileRows][kHcStreams];
  const cg::cluster_group cluster = cg::this_cluster();
  const int ranks = static_cast<int>(cluster.num_blocks());
  const int rank = static_cast<int>(cluster.block_rank());
  const int warps = blockDim.x / kLanes;
  const int warp = threadIdx.x / kLanes;
  const int lane = threadIdx.x % kLanes;
  const int g = lane / 4;
  const int t = lane % 4;
  const int64_t first_row = static_cast<int64_t>(blockIdx.x / ranks) * kTileRows;
  const int64_t slice = rank * warps + warp;

  Slice s;
  s.Load(p, first_row, slice, lane);
  if (gridDim.x <= 16 * kRanksMax) PrefetchWeights(p, kOutputs, slice, lane);
  if constexpr (kMerge) {
    __shared__ float factors[kTileRows * kMergeFactors];
    LoadFactors(p, first_row, factors);
    __syncthreads();
    s.Merge(p, factors, lane);
  }
  float sums[kTiles][4] = {};
  float squares[2] = {};
  SumSlice<kTiles, kOutputs>(p, s, lane, sums, squares);
  float* const low = of_warp[warp] + g * kColumns;
  float* const high = low + 8 * kColumns;
#pragma unroll
  for (int i = 0; i < kTiles; ++i) {
    const int column = 8 * i + 2 * t;
    if (column >= kOutputs) continue;
    low[column] = sums[i][0];
    low[column + 1] = sums[i][1];
    high[column] = sums[i][2];
    high[column + 1] = sums[i][3];
  }
  if (t == 0) {
    low[kSquares] = squares[0];
    high[kSquares] = squares[1];
  }
  __syncthreads();
  for (int i = threadIdx.x; i < kTileRows * kColumns; i += blockDim.x) {
    float sum = of_warp[0][i];
    for (int w = 1; w < warps; ++w) sum += of_warp[w][i];
    of_block[i] = sum;
  }
  cluster.sync();
  for (int i = threadIdx.x; i < kTileRows * kColumns; i += blockDim.x) {
    float of_rank[kRanksMax];
#pragma unroll
    for (int r = 0; r < kRanksMax; ++r) {
      of_rank[r] = r < ranks ? cluster.map_shared_rank(of_block, r)[i] : 0.0f;
    }
    float sum = of_rank[0];
#pragma unroll
    for (int r = 1; r < kRanksMax; ++r) {
      if (r < ranks) sum += of_rank[r];
    }
    mix[i] = sum;
  }
  cluster.barrier_arrive();  // of_block has been read; it is waited for at the end
  __syncthreads();
  const int64_t width = kHcStreams * p.shape.dim;
  for (int i = threadIdx.x; i < kTileRows * kHcStreams; i += blockDim.x) {
    const int row = i / kHcStreams;
    const int j = i % kHcStreams;
    const float* const m = mix + row * kColumns;
    const float scale = NormScale(m[kSquares], width, p.shape.norm_eps);
    pre[row][j] = Sigmoid(m[j] * scale * p.weights.scale[0] + p.weights.base[j]) +
                  p.shape.hc_eps;
  }
  __syncthreads();

#pragma unroll
  for (int half = 0; half < 2; ++half) {
    if (!s.Has(p, half)) continue;
    const float* const factors = pre[g + 8 * half];
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      float x[8];
#pragma unroll
      for (int j = 0; j < kHcStreams; ++j) {
        float v[8];
        Unpack8(s.v[half][u][j], v);
#pragma unroll
        for (int e = 0; e < 8; ++e) {
          x[e] = j == 0 ? factors[0] * v[e] : fmaf(factors[j], v[e], x[e]);
        }
      }
      Store8(x, p.x + (s.row + 8 * half) * p.shape.dim + s.channel + 32 * u);
    }
  }

  if constexpr (kOutputs == kHcMixes) {
    // Each block has its part of the rows, each warp two at a time: half a warp for a row.
    const int rows = kTileRows / ranks;
    for (int r = 2 * warp; r < rows; r += 2 * warps) {
      const int row = rank * rows + r + lane / 16;
      const int e = lane % 16;
      const float* const m = mix + row * kColumns;
      const float scale = NormScale(m[kSquares], width, p.shape.norm_eps);
      const float c = Sinkhorn(m[8 + e] * scale * p.weights.scale[2] + p.weights.base[8 + e],
                               lane, p.shape.sinkhorn_iterations, p.shape.hc_eps);
      if (first_row + row >= p.shape.rows) continue;
      p.comb[(first_row + row) * 16 + e] = c;
      if (e >= kHcStreams) continue;
      p.post[(first_row + row) * kHcStreams + e] =
          2.0f * Sigmoid(m[4 + e] * scale * p.weights.scale[1] + p.weights.base[4 + e]);
    }
  }
  cluster.barrier_wait();  // no block leaves while another may read its sums
}

// A thread has eight channels of a row.
__global__ void __launch_bounds__(256)
    HcMergeKernel(const HcMerging merging, int64_t rows, int chunks, uint16_t* streams) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t row = i / chunks;
  if (row >= rows) return;
  const int64_t dim = 8 * static_cast<int64_t>(chunks);
  const int64_t channel = 8 * (i - row * chunks);
  uint16_t* const at = streams + row * kHcStreams * dim + channel;
  uint4 old[kHcStreams];
  uint4 merged[kHcStreams];
#pragma unroll
  for (int j = 0; j < kHcStreams; ++j) old[j] = *reinterpret_cast<const uint4*>(at + j * dim);
  MergeEight(merging.post + row * kHcStreams, merging.comb + row * kHcStreams * kHcStreams,
             *reinterpret_cast<const uint4*>(merging.f + row * dim + channel), old, merged);
#pragma unroll
  for (int j = 0; j < kHcStreams; ++j) *reinterpret_cast<uint4*>(at + j * dim) = merged[j];
}

template <int kOutputs, bool kMerge>
absl::Status LaunchMix(Stream stream, const MixParams& params) {
  const int64_t slices = params.shape.dim / kSlice;
  int ranks = 1;
  while (ranks < kRanksMax && slices > 8 * ranks) ranks *= 2;
  const int64_t warps = slices / ranks;
  CAIRN_RETURN_IF_ERROR(Require(params.shape.dim > 0 && params.shape.dim % kSlice == 0 &&
                                    slices % ranks == 0 && warps <= kWarpsMax,
                                "HcMix: dim is none of those in hyper_connection.h"));
  const int64_t rows = params.shape.rows;
  CAIRN_RETURN_IF_ERROR(
      Require(rows >= 0 && rows <= (int64_t{1} << 27), "HcMix: rows not in [0, 2^27]"));
  CAIRN_RETURN_IF_ERROR(Require(params.shape.sinkhorn_iterations >= 1,
                                "HcMix: there is at least one Sinkhorn iteration"));
  if (rows == 0) return absl::OkStatus();
  cudaLaunchAttribute cluster;
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {static_cast<unsigned>(ranks), 1, 1};
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(CeilDiv(rows, int64_t{kTileRows}) * ranks));
  config.blockDim = dim3(static_cast<unsigned>(warps * kLanes));
  config.stream = stream;
  config.attrs = &cluster;
  config.numAttrs = 1;
  static_cast<void>(cudaLaunchKernelEx(&config, HcMixKernel<kOutputs, kMerge>, params));
  return LaunchStatus("HcMix");
}

}  // namespace

// Where nothing is merged first, streams are not written.
absl::Status HcMix(Stream stream, const HcWeights& weights, const HcShape& shape,
                   const uint16_t* streams, uint16_t* x, float* post, float* comb) {
  return LaunchMix<kHcMixes, false>(
      stream, {weights, shape, {}, const_cast<uint16_t*>(streams), x, post, comb});
}

absl::Status HcMergeMix(Stream stream, const HcMerging& merging, const HcWeights& weights,
                        const HcShape& shape, uint16_t* streams, uint16_t* x, float* post,
                        float* comb) {
  return LaunchMix<kHcMixes, true>(stream, {weights, shape, merging, streams, x, post, comb});
}

absl::Status HcCollapse(Stream stream, const HcWeights& weights, const HcShape& shape,
                        const uint16_t* streams, uint16_t* x) {
  return LaunchMix<kHcStreams, false>(
      stream, {weights, shape, {}, const_cast<uint16_t*>(streams), x, nullptr, nullptr});
}

absl::Status HcMerge(Stream stream, const HcMerging& merging, int64_t rows, int64_t dim,
                     uint16_t* streams) {
  CAIRN_RETURN_IF_ERROR(Require(dim > 0 && dim % 8 == 0 && dim <= (1 << 20),
                                "HcMerge: dim not a multiple of 8 up to 2^20"));
  CAIRN_RETURN_IF_ERROR(Require(rows >= 0 && rows <= (int64_t{1} << 27) / (dim / 8) * 256,
                                "HcMerge: rows not in [0, 2^38 / dim]"));
  if (rows == 0) return absl::OkStatus();
  constexpr int64_t kThreads = 256;
  HcMergeKernel<<<static_cast<unsigned>(CeilDiv(rows * (dim / 8), kThreads)), kThreads, 0,
                  stream>>>(merging, rows, static_cast<int>(dim / 8), streams);
  return LaunchStatus("HcMerge");
}

}  // namespace cairn::kernels::cuda
