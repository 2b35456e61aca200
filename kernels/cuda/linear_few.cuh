// linear_few.cuh: products of few rows, or of few outputs: tiles of 64 outputs x kRows rows.
//
// What counts is that all of the device reads W, without pause. Blocks take tile after tile, with
// stages of shared memory filled ahead; the first of W is loaded while the kernel before this one
// still runs.
//
// Where there are too few outputs for that, the blocks of a cluster share k of a tile: each makes
// the parts of its blocks of k, scaled, and sends them to the block that adds them all up, in k's
// order. Scales are powers of two, so part * scale is exact and sum + part * scale is what
// fma(part, scale, sum) is: the same bits as in one block. (Not where a scaled part is below
// 2^-126.)
#ifndef CAIRN_KERNELS_CUDA_LINEAR_FEW_CUH_
#define CAIRN_KERNELS_CUDA_LINEAR_FEW_CUH_

#include <utility>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/linear_parts.cuh"

namespace cairn::kernels::cuda::internal {

constexpr int kFewThreads = 160;  // a warpgroup of consumers and a warp that loads
constexpr int32_t kFewStages = 6, kFewStagesMax = 16;

// Shared memory: job.stages stages of W and x, each stage's x scales, barriers, parts made, parts
// to add up. kBatch: so many parts are being made at once, as far as registers go.
template <class Weights, int kRows>
struct FewLayout {
  static constexpr int kX = (Weights::kBlockBytes + 1023) / 1024 * 1024;  // in a stage
  static constexpr int kXBytes = kRows * kRowBytes;
  static constexpr int kStage = kX + kXBytes;
  static constexpr int kScaleBytes = kScaleBoxBytes<kRows>;
  static constexpr int kBatch = kRows <= 16 ? 4 : 2;
  static constexpr int kPartsBarrier = 16;
  static constexpr int64_t Bytes(int64_t stages, int64_t part_bytes) {
    return stages * (kStage + kScaleBytes + 16) + kPartsBarrier + part_bytes;
  }
  // Of a block that has a multiprocessor to itself.
  static constexpr int32_t StagesAlone(int64_t part_bytes) {
    const int64_t fit = (kSharedBytesMax - kPartsBarrier - part_bytes) / Bytes(1, -kPartsBarrier);
    return static_cast<int32_t>(fit < kFewStagesMax ? fit : kFewStagesMax);
  }
};

template <class Weights, int kRows>
struct FewBlock {
  using Layout = FewLayout<Weights, kRows>;
  using Sums = float[kRows / 2];
  const TensorMap& w_map;
  const TensorMap& x_map;
  const TensorMap& scales_map;
  const LinearJob& job;
  uint32_t shared, rank, cluster;
  int32_t k_begin, k_end;  // this block's

  __device__ uint32_t Stage(uint32_t stage) const { return shared + stage * Layout::kStage; }
  __device__ uint32_t Scales(uint32_t stage) const {
    return Stage(job.stages) + stage * Layout::kScaleBytes;
  }
  __device__ uint32_t Full(uint32_t stage) const { return Scales(job.stages) + stage * 16; }
  __device__ uint32_t Empty(uint32_t stage) const { return Full(stage) + 8; }
  __device__ uint32_t PartsBarrier() const { return Full(job.stages); }

  // Clusters take one tile; a block alone takes as many as there are.
  template <class Do>
  __device__ void ForEachTile(const Do& what) const {
    const bool experts = job.tiles != nullptr;
    const int32_t count = TileCount(job, experts, 1);
    for (int32_t i = blockIdx.x / cluster; i < count; i += gridDim.x / cluster) {
      what(TileAt(job, experts, i, kOutputs, kRows, 1, 0));
    }
  }

  // ---- loading ----

  __device__ void LoadWeights(const Tile& tile, int32_t k, uint32_t stage) const {
    constexpr uint32_t kBytes =
        Weights::kBlockBytes + Layout::kXBytes + (Weights::kScaled ? kScaleBox<kRows> * 4 : 0);
    BarrierExpect(Full(stage), kBytes);
    const int32_t w_row = tile.expert * job.n + tile.output;
    if constexpr (Weights::kPieces) {
      Weights::LoadBlock(job, w_row / kOutputs, k, Stage(stage), Full(stage), 1);
    } else {
      LoadBox(w_map, Stage(stage), Full(stage), k * Weights::kBlockK, w_row);
    }
  }

  __device__ void LoadRows(const Tile& tile, int32_t k, uint32_t stage) const {
    const int32_t x_block = tile.output / job.group_outputs * job.k_blocks;
    LoadBox(x_map, Stage(stage) + Layout::kX, Full(stage), (x_block + k) * Weights::kBlockK,
            tile.row);
    if constexpr (Weights::kScaled) {
      LoadBox(scales_map, Scales(stage), Full(stage), ScaleColumn(tile.row), k);
    }
  }

  __device__ void Produce() const {
    StageCounter at;
    bool early = true;
    ForEachTile([&](const Tile& tile) {
      int32_t k = k_begin;
      if (early) {
        const int32_t lead = min(k_end, k_begin + job.stages);
        for (int32_t i = k; i < lead; ++i) LoadWeights(tile, i, i - k_begin);
        WaitForKernelsBefore();
        for (; k < lead; ++k, at.Next(job.stages)) LoadRows(tile, k, at.stage);
        early = false;
      }
      for (; k < k_end; ++k, at.Next(job.stages)) {
        BarrierWait(Empty(at.stage), at.parity ^ 1);
        LoadWeights(tile, k, at.stage);
        LoadRows(tile, k, at.stage);
      }
    });
  }

  // ---- parts ----

  // The next kCount parts, at once: use(part, address of x scales, w scale) for each.
  template <int kCount, class Use>
  __device__ void MakeParts(const Tile& tile, StageCounter& at, WeightScales<Weights>& w_scales,
                            const Use& use) const {
    Sums part[kCount];
    typename Weights::Held held[kCount];
    uint32_t stage_of[kCount];
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      stage_of[i] = at.stage;
      BarrierWait(Full(at.stage), at.parity);
      StartPart<Weights, kRows>(part[i], held[i], Stage(at.stage), Stage(at.stage) + Layout::kX);
      at.Next(job.stages);
    }
    const auto finish = [&]<int i>(std::integral_constant<int, i>) {
      FinishPart<Weights, kRows, kCount - 1 - i>(part[i], held[i]);
      use(part[i], Scales(stage_of[i]) + ScaleOffset(tile.row), w_scales.Next());
      __syncwarp();
      if (threadIdx.x % 32 == 0) BarrierArrive(Empty(stage_of[i]));
    };
    ForEachIndex(finish, std::make_integer_sequence<int, kCount>());
  }
  template <class Do, int... i>
  __device__ static void ForEachIndex(const Do& what, std::integer_sequence<int, i...>) {
    (what(std::integral_constant<int, i>()), ...);
  }

  // The parts of this block's k, ascending.
  template <class Use>
  __device__ void ForEachPart(const Tile& tile, StageCounter& at, const Use& use) const {
    WeightScales<Weights> w_scales(job, tile.expert * job.n + tile.output, k_begin, k_end);
    int32_t k = k_begin;
    for (; k + Layout::kBatch <= k_end; k += Layout::kBatch) {
      MakeParts<Layout::kBatch>(tile, at, w_scales, use);
    }
    for (; k < k_end; ++k) MakeParts<1>(tile, at, w_scales, use);
  }

  // ---- sums of shared k ----

  // Of the blocks that share k the first 4, or 2, add up: each the outputs of one, or two, warps.
  __device__ uint32_t Adders() const { return cluster < 4 ? cluster : 4; }
  __device__ uint32_t AdderOf(uint32_t warp) const { return warp * Adders() / 4; }
  // Bytes of a k block's parts for one adder.
  __device__ uint32_t LineBytes() const { return 4 / Adders() * kRows / 8 * 512; }
  // Parts made: [adder][own k], parts to add up: [k]; then [warp of the adder][j][lane][4]. Lines of
  // ascending k lie one behind the other.
  __device__ uint32_t Made(uint32_t adder) const {
    const uint32_t line = adder * static_cast<uint32_t>(k_end - k_begin);
    return PartsBarrier() + Layout::kPartsBarrier + line * LineBytes();
  }
  __device__ uint32_t ToAdd(int32_t k) const {
    const uint32_t made = (static_cast<uint32_t>(job.k_blocks) + cluster - 1) / cluster * Adders();
    return PartsBarrier() + Layout::kPartsBarrier + (made + k) * LineBytes();
  }
  // This thread's place in a line, for j = 0; the next is 512 bytes behind.
  __device__ uint32_t InLine() const {
    const uint32_t warp = threadIdx.x / 32 % (4 / Adders());
    return (warp * kRows / 8 * 32 + threadIdx.x % 32) * 16;
  }

  // Bytes that come to an adder from the others; its own parts each thread keeps for itself.
  __device__ uint32_t BytesFromOthers() const {
    return static_cast<uint32_t>(job.k_blocks - (k_end - k_begin)) * LineBytes();
  }

  __device__ void SendParts(const Tile& tile, StageCounter& at) const {
    const uint32_t adder = AdderOf(threadIdx.x / 32);
    // Worked out once: divisions here cost each part more than its product.
    uint32_t to = (adder == rank ? ToAdd(k_begin) : Made(adder)) + InLine();
    const uint32_t line_bytes = LineBytes();
    ForEachPart(tile, at, [&](const Sums& part, uint32_t x_scales, float w_scale) {
      Sums scaled = {};
      AddPart<Weights, kRows>(scaled, part, x_scales, w_scale);
#pragma unroll
      for (int j = 0; j < kRows / 8; ++j) {
        StoreSharedF32x4(to + j * 512,
                         {scaled[4 * j], scaled[4 * j + 1], scaled[4 * j + 2], scaled[4 * j + 3]});
      }
      to += line_bytes;
    });
    FenceForCopies();
    NamedBarrier(1, 128);
    if (threadIdx.x < Adders() && threadIdx.x != rank) {
      CopyToBlock(Made(threadIdx.x), AddressInBlock(ToAdd(k_begin), threadIdx.x),
                  AddressInBlock(PartsBarrier(), threadIdx.x),
                  static_cast<uint32_t>(k_end - k_begin) * LineBytes());
    }
    __syncwarp();
  }

  __device__ void AddParts(Sums& sum) const {
    uint32_t from = ToAdd(0) + InLine();
    const uint32_t line_bytes = LineBytes();
#pragma unroll 4
    for (int32_t k = 0; k < job.k_blocks; ++k, from += line_bytes) {
#pragma unroll
      for (int j = 0; j < kRows / 8; ++j) {
        const float4 part = LoadSharedF32x4(from + j * 512);
        sum[4 * j] += part.x;
        sum[4 * j + 1] += part.y;
        sum[4 * j + 2] += part.z;
        sum[4 * j + 3] += part.w;
      }
    }
  }

  __device__ void Store(const Sums& sum, const Tile& tile) const {
    const Target to = TargetAt(job, tile.output, tile.row, tile.rows_end);
    if (job.y_f32 != 0) {
      StoreF32<kRows>(sum, to);
    } else {
      StoreBf16<kRows>(sum, to);
    }
  }

  __device__ void Consume() const {
    StageCounter at;
    ForEachTile([&](const Tile& tile) {
      Sums sum = {};
      if (cluster == 1) {
        ForEachPart(tile, at, [&](const Sums& part, uint32_t x_scales, float w_scale) {
          AddPart<Weights, kRows>(sum, part, x_scales, w_scale);
        });
      } else {
        SendParts(tile, at);
        if (AdderOf(threadIdx.x / 32) != rank) return;
        BarrierWait(PartsBarrier(), 0);
        AddParts(sum);
      }
      Store(sum, tile);
    });
  }
};

template <class Weights, int kRows>
__global__ void __launch_bounds__(kFewThreads)
    FewKernel(const __grid_constant__ TensorMap w_map, const __grid_constant__ TensorMap x_map,
              const __grid_constant__ TensorMap scales_map, const __grid_constant__ TensorMap,
              const __grid_constant__ LinearJob job) {
  extern __shared__ __align__(1024) uint8_t shared_bytes[];
  LetNextStart();
  if (job.tiles != nullptr) WaitForKernelsBefore();
  const uint32_t cluster = ClusterSize();
  const uint32_t rank = ClusterRank();
  const auto share = [&](uint32_t r) {
    return static_cast<int32_t>(static_cast<uint32_t>(job.k_blocks) * r / cluster);
  };
  const FewBlock<Weights, kRows> block{
      w_map,   x_map,       scales_map,     job, SharedAddress(shared_bytes), rank,
      cluster, share(rank), share(rank + 1)};
  if (threadIdx.x == 0) {
    for (int32_t s = 0; s < job.stages; ++s) {
      BarrierInit(block.Full(s), 1);
      BarrierInit(block.Empty(s), 4);  // a warp of consumers each
    }
    BarrierInit(block.PartsBarrier(), 1);
    PublishBarriers();
    if (cluster > 1) BarrierExpect(block.PartsBarrier(), block.BytesFromOthers());
  }
  __syncthreads();
  if (cluster > 1) ClusterBarrier();
  if (threadIdx.x < 128) {
    block.Consume();
  } else if (threadIdx.x == 128) {
    block.Produce();
  }
  __syncwarp();
  // Whoever adds up has waited for the parts: they have left the others' shared memory.
  if (cluster > 1) ClusterBarrier();
}

}  // namespace cairn::kernels::cuda::internal

#endif  // CAIRN_KERNELS_CUDA_LINEAR_FEW_CUH_
