#include "kernels/cuda/hyper_connection.h"

#include <cooperative_groups.h>

#include <algorithm>
#include <atomic>

#include "kernels/cuda/hyper_connection_comb.cuh"
#include "kernels/cuda/hyper_connection_slice.cuh"
#include "kernels/cuda/launch.cuh"

namespace cairn::kernels::cuda {
namespace {

namespace cg = cooperative_groups;

// x of the lane's channels.
__device__ inline void Collapse(const HcMixParams& p, const HcSlice& s, const float* pre, int lane) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    if (!s.Has(p, half)) continue;
    const float* const factors = pre + (lane / 4 + 8 * half) * kHcStreams;
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
      Store8(x, p.x + s.RowAt(p, half, u));
    }
  }
}

__global__ void __launch_bounds__(kLanes) HcFinishKernel(const HcShape shape, float* comb) {
  const int64_t row = int64_t{blockIdx.x} * 2 + threadIdx.x / 16;
  FinishRow(shape, row < shape.rows, row, comb);
}

// The rows that this block wrote the logits of.
__device__ inline void FinishComb(const HcMixParams& p, int64_t tile, int64_t tile_stride,
                                  int64_t tiles, int rank, int rows_of_rank) {
  const int lane = threadIdx.x % kLanes;
  const int halves = blockDim.x / 16;
  const int64_t items = (tiles - tile + tile_stride - 1) / tile_stride * rows_of_rank;
  for (int64_t first = threadIdx.x / kLanes * 2; first < items; first += halves) {
    const int64_t item = first + lane / 16;
    const int64_t row = (tile + item / rows_of_rank * tile_stride) * kTileRows +
                        rank * rows_of_rank + item % rows_of_rank;
    const bool has = item < items && row < p.shape.rows;
    FinishRow(p.shape, has, row, p.comb);
  }
}

// What the blocks of a cluster tell each other of a tile: four sums of a row at a time. Quads 0 (for
// pre) and the last (the sum of squares) of all rows go to every block, the others to the one that
// writes post and comb of the row. A block waits for what all send it, itself among them; nothing
// waits for its loads and stores, as a barrier of the cluster would.
template <int kOutputs>
struct Exchange {
  static constexpr int kQuads = kOutputs / 4 + 1;
  static constexpr int kForAll = 2 * kTileRows;
  static constexpr int kForOwner = kQuads - 2;  // of a row
  // From a block, of a tile. With fewer blocks there are more rows for each.
  __host__ __device__ static constexpr int QuadsOfRank(int ranks) { return kForAll + kTileRows / ranks * kForOwner; }
  static constexpr int kQuadsMax =
      std::max(QuadsOfRank(1), std::max(8 * QuadsOfRank(8), kRanksMax * QuadsOfRank(kRanksMax)));

  float4 inbox[2][kQuadsMax];  // of tiles in turn; a block's quads by rank
  uint64_t arrived[2];

  __device__ static uint32_t Address(const void* shared) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  }
  __device__ static uint32_t AddressIn(uint32_t address, int rank) {
    uint32_t there;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
    return there;
  }

  // By one thread, before a barrier of the cluster.
  __device__ void Init() {
    for (uint64_t& barrier : arrived) {
      asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(Address(&barrier)) : "memory");
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }

  // By one thread, once a tile.
  __device__ void Expect(int turn, int ranks) {
    if (ranks == 1) return;
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(
                     Address(&arrived[turn])),
                 "r"(ranks * QuadsOfRank(ranks) * static_cast<int>(sizeof(float4)))
                 : "memory");
  }

  __device__ void Push(int turn, int to_rank, int from_rank, int quad, int ranks, float4 v) {
    float4* const place = &inbox[turn][from_rank * QuadsOfRank(ranks) + quad];
    if (ranks == 1) {  // no cluster, so no stores into one
      *place = v;
      return;
    }
    asm volatile(
        "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, "
        "[%5];" ::"r"(AddressIn(Address(place), to_rank)),
        "f"(v.x), "f"(v.y), "f"(v.z), "f"(v.w),
        "r"(AddressIn(Address(&arrived[turn]), to_rank))
        : "memory");
  }

  // quads: [kTileRows][kQuads], the block's sums. By all threads.
  __device__ void Send(int turn, int rank, int ranks, const float4* quads) {
    const int for_all = ranks * kForAll;
    const int rows_of_rank = kTileRows / ranks;
    for (int i = threadIdx.x; i < for_all + kTileRows * kForOwner; i += blockDim.x) {
      if (i < for_all) {
        const int quad = i % kForAll;
        Push(turn, i / kForAll, rank, quad, ranks,
             quads[quad / 2 * kQuads + quad % 2 * (kQuads - 1)]);
      } else {
        const int k = i - for_all;
        const int row = k / max(kForOwner, 1);
        const int quad = k % max(kForOwner, 1);
        Push(turn, row / rows_of_rank, rank, kForAll + row % rows_of_rank * kForOwner + quad, ranks,
             quads[row * kQuads + 1 + quad]);
      }
    }
  }

  __device__ void Wait(int turn, int phase, int ranks) {
    if (ranks == 1) return __syncthreads();
    uint32_t done = 0;
    while (done == 0) {
      asm volatile(
          "{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; "
          "selp.u32 %0, 1, 0, p; }"
          : "=r"(done)
          : "r"(Address(&arrived[turn])), "r"(phase)
          : "memory");
    }
  }

  // Over the blocks in order: value `member` of a quad.
  __device__ float Sum(int turn, int quad, int member, int ranks) const {
    const int stride = QuadsOfRank(ranks) * 4;
    const float* const first = &inbox[turn][quad].x + member;
    float part[kRanksMax];
#pragma unroll
    for (int r = 0; r < kRanksMax; ++r) part[r] = r < ranks ? first[r * stride] : 0.0f;
    float sum = part[0];
#pragma unroll
    for (int r = 1; r < kRanksMax; ++r) sum = r < ranks ? sum + part[r] : sum;
    return sum;
  }
};

// The sums of a tile to pre of all rows and to post and logits of comb of the block's own.
template <int kOutputs>
__device__ inline void WeighStreams(const HcMixParams& p, const Exchange<kOutputs>& exchange,
                                    int turn, int64_t first_row, int rank, int ranks, float* pre) {
  constexpr int kPre = kTileRows * kHcStreams;
  constexpr int kOthers = kOutputs - kHcStreams;
  const int rows_of_rank = kTileRows / ranks;
  for (int i = threadIdx.x; i < kPre + rows_of_rank * kOthers; i += blockDim.x) {
    const bool is_pre = i < kPre;
    const int own_row = is_pre ? 0 : (i - kPre) / max(kOthers, 1);
    const int other = is_pre ? 0 : (i - kPre) % max(kOthers, 1);
    const int row = is_pre ? i / kHcStreams : rank * rows_of_rank + own_row;
    const int output = is_pre ? i % kHcStreams : kHcStreams + other;
    const int quad = is_pre ? 2 * row
                            : exchange.kForAll + own_row * exchange.kForOwner + other / 4;
    const float squares = exchange.Sum(turn, 2 * row + 1, 0, ranks);
    const float sum = exchange.Sum(turn, quad, output % 4, ranks);
    const int kind = is_pre ? 0 : output < 2 * kHcStreams ? 1 : 2;
    const float v = sum * NormScale(squares, kHcStreams * p.shape.dim, p.shape.norm_eps) *
                        __ldg(p.weights.scale + kind) +
                    __ldg(p.weights.base + output);
    const int64_t to = first_row + row;
    if (is_pre) {
      pre[i] = Sigmoid(v) + p.shape.hc_eps;
    } else if (to < p.shape.rows && kind == 1) {
      p.post[to * kHcStreams + output - kHcStreams] = 2.0f * Sigmoid(v);
    } else if (to < p.shape.rows) {
      p.comb[to * kHcStreams * kHcStreams + output - 2 * kHcStreams] = v;
    }
  }
}

// A cluster has 16 rows at a time, each of its blocks an equal part of the channels, each warp a
// slice. Streams are read once, into registers, those of the next tile while this one is worked on.
// kOutputs: 24 of a sub-layer, 4 of a head. It starts early, and has its weights when the streams are
// there.
template <int kOutputs, bool kMerge>
__global__ void __launch_bounds__(kWarpsMax* kLanes, 1) HcMixKernel(const HcMixParams p) {
  using Weights = HcSliceWeights<kOutputs>;
  constexpr int kColumns = 4 * Exchange<kOutputs>::kQuads;  // outputs, the sum of squares, nothing
  extern __shared__ uint4 fragments[];  // [warps][kFragments][kLanes]
  __shared__ alignas(16) float of_warp[kWarpsMax][kTileRows * kColumns];
  __shared__ alignas(16) Exchange<kOutputs> exchange;
  __shared__ float pre[kTileRows * kHcStreams];
  const cg::cluster_group cluster = cg::this_cluster();
  const int ranks = static_cast<int>(cluster.num_blocks());
  const int rank = static_cast<int>(cluster.block_rank());
  const int warps = blockDim.x / kLanes;
  const int warp = threadIdx.x / kLanes;
  const int lane = threadIdx.x % kLanes;
  const int64_t slice = rank * warps + warp;
  const int64_t tiles = (p.shape.rows + kTileRows - 1) / kTileRows;
  const int64_t first_tile = blockIdx.x / ranks;
  const int64_t tile_stride = gridDim.x / ranks;

  if (tiles <= kFewTiles) LetNextStart();
  if (threadIdx.x == 0) exchange.Init();
  cluster.barrier_arrive();
  PrefetchWeights(p, kOutputs, slice, lane);
  const Weights weights{fragments + warp * Weights::kFragments * kLanes + lane};
  weights.Load(p, HcSlice::Channel(slice, lane), lane);
  WaitForKernelsBefore();
  HcSlice next;
  next.Load<kMerge>(p, first_tile * kTileRows, slice, lane);
  cluster.barrier_wait();

  // The inbox of a turn is free when it is sent to again: who sends has waited for the tile between,
  // which this block sent when all its threads had read the inbox.
  int count = 0;
  for (int64_t tile = first_tile; tile < tiles; tile += tile_stride, ++count) {
    const int turn = count % 2;
    HcSlice s = next;
    next.Load<kMerge>(p, (tile + tile_stride) * kTileRows, slice, lane);
    if (threadIdx.x == 0) exchange.Expect(turn, ranks);
    if constexpr (kMerge) {
      __shared__ float factors[kTileRows * kMergeFactors];
      LoadFactors(p, tile * kTileRows, factors);
      __syncthreads();
      s.Merge(p, factors, lane);
    }
    float sums[Weights::kTiles][4] = {};
    float squares[2] = {};
    weights.Sum(s, sums, squares);
    float* const low = of_warp[warp] + lane / 4 * kColumns;
    float* const high = low + 8 * kColumns;
#pragma unroll
    for (int i = 0; i < Weights::kTiles; ++i) {
      const int column = 8 * i + lane % 4 * 2;
      if (column >= kOutputs) continue;
      low[column] = sums[i][0];
      low[column + 1] = sums[i][1];
      high[column] = sums[i][2];
      high[column + 1] = sums[i][3];
    }
    low[kOutputs + lane % 4] = lane % 4 == 0 ? squares[0] : 0.0f;
    high[kOutputs + lane % 4] = lane % 4 == 0 ? squares[1] : 0.0f;
    __syncthreads();
    for (int i = threadIdx.x; i < kTileRows * kColumns; i += blockDim.x) {
      float sum = of_warp[0][i];
#pragma unroll
      for (int w = 1; w < kWarpsMax; ++w) {
        if (w < warps) sum += of_warp[w][i];
      }
      of_warp[0][i] = sum;
    }
    __syncthreads();
    exchange.Send(turn, rank, ranks, reinterpret_cast<const float4*>(of_warp[0]));
    exchange.Wait(turn, count / 2 % 2, ranks);
    WeighStreams(p, exchange, turn, tile * kTileRows, rank, ranks, pre);
    __syncthreads();
    Collapse(p, s, pre, lane);
  }
  if (kOutputs > kHcStreams && !p.shape.finish_later) {
    FinishComb(p, first_tile, tile_stride, tiles, rank, kTileRows / ranks);
  }
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

absl::Status CheckRows(const HcShape& shape) {
  CAIRN_RETURN_IF_ERROR(
      Require(shape.rows >= 0 && shape.rows <= (int64_t{1} << 27), "HcMix: rows not in [0, 2^27]"));
  return Require(shape.sinkhorn_iterations >= 1, "HcMix: there is at least one Sinkhorn iteration");
}

template <int kOutputs, bool kMerge>
absl::Status LaunchMix(Stream stream, const HcMixParams& params) {
  const int64_t slices = params.shape.dim / kSlice;
  int64_t ranks = 1;
  while (ranks < kRanksMax && slices > kWarpsMax * ranks) ranks *= 2;
  const int64_t warps = slices / ranks;
  CAIRN_RETURN_IF_ERROR(Require(params.shape.dim > 0 && params.shape.dim % kSlice == 0 &&
                                    slices % ranks == 0 && warps <= kWarpsMax,
                                "HcMix: dim is none of those in hyper_connection.h"));
  const int64_t rows = params.shape.rows;
  CAIRN_RETURN_IF_ERROR(CheckRows(params.shape));
  if (rows == 0) return absl::OkStatus();
  const auto kernel = HcMixKernel<kOutputs, kMerge>;
  constexpr int kFragmentBytes = HcSliceWeights<kOutputs>::kFragments * kLanes * sizeof(uint4);
  static const absl::Status allowed = [kernel]() -> absl::Status {
    CAIRN_RETURN_IF_ERROR(CudaStatus(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             kWarpsMax * kFragmentBytes),
        "HcMix's shared memory"));
    return CudaStatus(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1),
        "HcMix's clusters");
  }();
  CAIRN_RETURN_IF_ERROR(allowed);
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributeClusterDimension;
  attributes[0].val.clusterDim = {static_cast<unsigned>(ranks), 1, 1};
  attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[1].val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(CeilDiv(rows, int64_t{kTileRows}) * ranks));
  config.blockDim = dim3(static_cast<unsigned>(warps * kLanes));
  config.dynamicSmemBytes = static_cast<size_t>(warps) * kFragmentBytes;
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = 1;  // what is asked next knows of clusters only
  // Clusters take tiles in turn: more than run at a time would wait for one that has done its share.
  static std::atomic<int> resident[kRanksMax + 1];
  if (resident[ranks] == 0) {
    int clusters = 0;
    CAIRN_RETURN_IF_ERROR(
        CudaStatus(cudaOccupancyMaxActiveClusters(&clusters, kernel, &config), "HcMix's clusters"));
    resident[ranks] = std::max(clusters, 1);
  }
  config.gridDim.x = std::min(config.gridDim.x, static_cast<unsigned>(resident[ranks] * ranks));
  config.numAttrs = 2;
  return CudaStatus(cudaLaunchKernelEx(&config, kernel, params), "HcMix");
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

absl::Status HcFinish(Stream stream, const HcShape& shape, float* comb) {
  CAIRN_RETURN_IF_ERROR(CheckRows(shape));
  if (shape.rows == 0) return absl::OkStatus();
  HcFinishKernel<<<static_cast<unsigned>(CeilDiv(shape.rows, int64_t{2})), kLanes, 0, stream>>>(
      shape, comb);
  return LaunchStatus("HcFinish");
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
