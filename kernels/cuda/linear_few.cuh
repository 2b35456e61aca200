// linear_few.cuh: products of few rows, or of few outputs: a block has 64 outputs x kRows rows.
//
// What counts is that all of the device reads W. Where there are too few outputs for that, the
// blocks of a cluster share k: each makes the parts of its blocks of k, scaled, and puts them into
// the shared memory of the block that adds them all up, in k's order. Scales are powers of two, so
// part * scale is exact and sum + part * scale is what fma(part, scale, sum) is: the same bits as
// in one block. (Not where a scaled part is below 2^-126.)
//
// The first of W is loaded while the kernel before this one still runs.
#ifndef CAIRN_KERNELS_CUDA_LINEAR_FEW_CUH_
#define CAIRN_KERNELS_CUDA_LINEAR_FEW_CUH_

#include <utility>

#include "kernels/cuda/linear_parts.cuh"

namespace cairn::kernels::cuda::internal {

constexpr int kFewThreads = 160;  // a warpgroup of consumers and a warp that loads

// Shared memory: job.stages stages of W and x, each stage's x scales, barriers, parts.
// kBatch: so many parts are being made at once, as far as registers go.
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
};

template <class Weights, int kRows>
struct FewBlock {
  using Layout = FewLayout<Weights, kRows>;
  const TensorMap& w_map;
  const TensorMap& x_map;
  const TensorMap& scales_map;
  const LinearJob& job;
  uint32_t shared, rank, cluster;
  int32_t expert, output, row, rows_end;
  int32_t k_begin, k_end;  // this block's

  __device__ uint32_t Stage(uint32_t stage) const { return shared + stage * Layout::kStage; }
  __device__ uint32_t Scales(uint32_t stage) const {
    return Stage(job.stages) + stage * Layout::kScaleBytes;
  }
  __device__ uint32_t Full(uint32_t stage) const { return Scales(job.stages) + stage * 16; }
  __device__ uint32_t Empty(uint32_t stage) const { return Full(stage) + 8; }
  __device__ uint32_t PartsBarrier() const { return Full(job.stages); }
  __device__ uint32_t Parts() const { return PartsBarrier() + Layout::kPartsBarrier; }

  __device__ void LoadWeights(int32_t k, uint32_t stage) const {
    constexpr uint32_t kBytes =
        Weights::kBlockBytes + Layout::kXBytes + (Weights::kScaled ? kScaleBox<kRows> * 4 : 0);
    BarrierExpect(Full(stage), kBytes);
    const int32_t w_row = expert * job.n + output;
    if constexpr (Weights::kPieces) {
      Weights::LoadBlock(job, w_row / kOutputs, k, Stage(stage), Full(stage), 1);
    } else {
      LoadBox(w_map, Stage(stage), Full(stage), k * Weights::kBlockK, w_row);
    }
  }

  __device__ void LoadRows(int32_t k, uint32_t stage) const {
    const int32_t x_block = output / job.group_outputs * job.k_blocks;
    LoadBox(x_map, Stage(stage) + Layout::kX, Full(stage), (x_block + k) * Weights::kBlockK, row);
    if constexpr (Weights::kScaled) {
      LoadBox(scales_map, Scales(stage), Full(stage), ScaleColumn(row), k);
    }
  }

  __device__ void Produce() const {
    const int32_t lead = min(k_end, k_begin + job.stages);
    for (int32_t k = k_begin; k < lead; ++k) LoadWeights(k, k - k_begin);
    WaitForKernelsBefore();
    for (int32_t k = k_begin; k < lead; ++k) LoadRows(k, k - k_begin);
    uint32_t stage = 0, parity = 0;
    for (int32_t k = lead; k < k_end; ++k) {
      BarrierWait(Empty(stage), parity);
      LoadWeights(k, stage);
      LoadRows(k, stage);
      if (++stage == static_cast<uint32_t>(job.stages)) {
        stage = 0;
        parity ^= 1;
      }
    }
  }

  // The parts of k to k + kCount, at once: use(k, part, address of x scales, w scale) for each.
  template <int kCount, class Use>
  __device__ void MakeParts(int32_t k, uint32_t& stage, uint32_t& parity,
                            WeightScales<Weights>& w_scales, const Use& use) const {
    float part[kCount][kRows / 2];
    typename Weights::Held held[kCount];
    uint32_t stage_of[kCount];
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      stage_of[i] = stage;
      BarrierWait(Full(stage), parity);
      StartPart<Weights, kRows>(part[i], held[i], Stage(stage), Stage(stage) + Layout::kX);
      if (++stage == static_cast<uint32_t>(job.stages)) {
        stage = 0;
        parity ^= 1;
      }
    }
    const auto finish = [&]<int i>(std::integral_constant<int, i>) {
      FinishPart<Weights, kRows, kCount - 1 - i>(part[i], held[i]);
      use(k + i, part[i], Scales(stage_of[i]) + ScaleOffset(row), w_scales.Next());
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
  __device__ void ForEachPart(const Use& use) const {
    WeightScales<Weights> w_scales(job, expert * job.n + output, k_begin, k_end);
    uint32_t stage = 0, parity = 0;
    int32_t k = k_begin;
    for (; k + Layout::kBatch <= k_end; k += Layout::kBatch) {
      MakeParts<Layout::kBatch>(k, stage, parity, w_scales, use);
    }
    for (; k < k_end; ++k) MakeParts<1>(k, stage, parity, w_scales, use);
  }

  // Of the blocks that share k the first 4, or 2, add up: each the outputs of one, or two, warps.
  __device__ uint32_t Adders() const { return cluster < 4 ? cluster : 4; }
  __device__ uint32_t AdderOf(uint32_t warp) const { return warp * Adders() / 4; }
  // Where a part's values 4 j to 4 j + 3 lie in the adding block's shared memory.
  __device__ uint32_t PartAt(int32_t k, int j) const {
    const uint32_t warps = 4 / Adders();
    const uint32_t line = (static_cast<uint32_t>(k) * warps + threadIdx.x / 32 % warps) * kRows / 8;
    return Parts() + ((line + static_cast<uint32_t>(j)) * 32 + threadIdx.x % 32) * 16;
  }

  __device__ uint32_t PartBytes() const {
    return static_cast<uint32_t>(job.k_blocks) * (4 / Adders()) * kRows * kOutputs;
  }

  // The sums of this block's k: all of it, or the parts for whoever adds them up.
  __device__ void MakeSums(float (&sum)[kRows / 2]) const {
    if (cluster == 1) {
      ForEachPart([&](int32_t, const float(&part)[kRows / 2], uint32_t x_scales, float w_scale) {
        AddPart<Weights, kRows>(sum, part, x_scales, w_scale);
      });
      return;
    }
    const uint32_t adder = AdderOf(threadIdx.x / 32);
    const uint32_t barrier = AddressInBlock(PartsBarrier(), adder);
    ForEachPart([&](int32_t k, const float(&part)[kRows / 2], uint32_t x_scales, float w_scale) {
      float scaled[kRows / 2] = {};
      AddPart<Weights, kRows>(scaled, part, x_scales, w_scale);
#pragma unroll
      for (int j = 0; j < kRows / 8; ++j) {
        StoreInCluster(AddressInBlock(PartAt(k, j), adder), barrier,
                       {scaled[4 * j], scaled[4 * j + 1], scaled[4 * j + 2], scaled[4 * j + 3]});
      }
    });
  }

  __device__ void AddParts(float (&sum)[kRows / 2]) const {
    for (int32_t k = 0; k < job.k_blocks; ++k) {
#pragma unroll
      for (int j = 0; j < kRows / 8; ++j) {
        const float4 part = LoadSharedF32x4(PartAt(k, j));
        sum[4 * j] += part.x;
        sum[4 * j + 1] += part.y;
        sum[4 * j + 2] += part.z;
        sum[4 * j + 3] += part.w;
      }
    }
  }

  __device__ void Store(const float (&sum)[kRows / 2]) const {
    const Target to = TargetAt(job, output, row, rows_end);
    if (job.y_f32 != 0) {
      StoreF32<kRows>(sum, to);
    } else {
      StoreBf16<kRows>(sum, to);
    }
  }
};

template <class Weights, int kRows>
__global__ void __launch_bounds__(kFewThreads)
    FewKernel(const __grid_constant__ TensorMap w_map, const __grid_constant__ TensorMap x_map,
              const __grid_constant__ TensorMap scales_map, const __grid_constant__ LinearJob job) {
  extern __shared__ __align__(1024) uint8_t shared_bytes[];
  LetNextStart();
  RowTile rows{0, static_cast<int32_t>(blockIdx.y) * kRows, job.rows};
  if (job.tiles != nullptr) {
    WaitForKernelsBefore();
    if (static_cast<int32_t>(blockIdx.y) >= *job.tile_count) return;
    rows = job.tiles[blockIdx.y];
  }
  const uint32_t cluster = ClusterSize();
  const uint32_t rank = ClusterRank();
  const auto share = [&](uint32_t r) {
    return static_cast<int32_t>(static_cast<uint32_t>(job.k_blocks) * r / cluster);
  };
  const FewBlock<Weights, kRows> block{w_map,
                                       x_map,
                                       scales_map,
                                       job,
                                       SharedAddress(shared_bytes),
                                       rank,
                                       cluster,
                                       rows.expert,
                                       static_cast<int32_t>(blockIdx.x / cluster) * kOutputs,
                                       rows.begin,
                                       rows.end,
                                       share(rank),
                                       share(rank + 1)};
  if (threadIdx.x == 0) {
    for (int32_t s = 0; s < job.stages; ++s) {
      BarrierInit(block.Full(s), 1);
      BarrierInit(block.Empty(s), 4);  // a warp of consumers each
    }
    BarrierInit(block.PartsBarrier(), 1);
    PublishBarriers();
    if (cluster > 1) BarrierExpect(block.PartsBarrier(), block.PartBytes());
  }
  __syncthreads();
  if (cluster > 1) ClusterBarrier();
  if (threadIdx.x == 128) block.Produce();
  if (threadIdx.x >= 128) return;
  float sum[kRows / 2] = {};
  block.MakeSums(sum);
  if (cluster > 1) {
    if (block.AdderOf(threadIdx.x / 32) != rank) return;
    BarrierWait(block.PartsBarrier(), 0);
    block.AddParts(sum);
  }
  block.Store(sum);
}

}  // namespace cairn::kernels::cuda::internal

#endif  // CAIRN_KERNELS_CUDA_LINEAR_FEW_CUH_
