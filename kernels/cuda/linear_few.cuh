// linear_few.cuh: products of few rows, or of few outputs: a block has 64 outputs x kRows rows.
//
// What counts is that all of the device reads W. Where there are too few outputs for that, the
// blocks of a cluster share k: each makes the parts of its blocks of k, scaled, and puts them into
// the shared memory of the block that adds them all up, in k's order. Scales are powers of two, so
// part * scale is exact and sum + part * scale is what fma(part, scale, sum) is: the same bits as
// in one block. (Not where a scaled part is below 2^-126.)
#ifndef CAIRN_KERNELS_CUDA_LINEAR_FEW_CUH_
#define CAIRN_KERNELS_CUDA_LINEAR_FEW_CUH_

#include "kernels/cuda/linear_parts.cuh"

namespace cairn::kernels::cuda::internal {

constexpr int kFewThreads = 160;  // a warpgroup of consumers and a warp that loads

// Shared memory: job.stages stages of W and x, each stage's x scales, barriers, parts.
template <class Weights, int kRows>
struct FewLayout {
  static constexpr int kX = (Weights::kBlockBytes + 1023) / 1024 * 1024;  // in a stage
  static constexpr int kXBytes = kRows * kRowBytes;
  static constexpr int kStage = kX + kXBytes;
  static constexpr int kScaleBytes = kRows * 4 < 128 ? 128 : kRows * 4;  // apart
  static constexpr int64_t Bytes(int64_t stages, int64_t part_bytes) {
    return stages * (kStage + kScaleBytes + 16) + part_bytes;
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
  __device__ uint32_t Parts() const { return Full(job.stages); }

  __device__ void Produce() const {
    constexpr uint32_t kBytes =
        Weights::kBlockBytes + Layout::kXBytes + (Weights::kScaled ? kRows * 4 : 0);
    const int32_t w_row = expert * job.n + output;
    const int32_t x_block = output / job.group_outputs * job.k_blocks;
    uint32_t stage = 0, round = 0;
    for (int32_t k = k_begin; k < k_end; ++k) {
      BarrierWait(Empty(stage), (round & 1) ^ 1);
      BarrierExpect(Full(stage), kBytes);
      if constexpr (Weights::kPieces) {
        Weights::LoadBlock(job, w_row / kOutputs, k, Stage(stage), Full(stage), 1);
      } else {
        LoadBox(w_map, Stage(stage), Full(stage), k * Weights::kBlockK, w_row);
      }
      LoadBox(x_map, Stage(stage) + Layout::kX, Full(stage), (x_block + k) * Weights::kBlockK, row);
      if constexpr (Weights::kScaled) LoadBox(scales_map, Scales(stage), Full(stage), row, k);
      if (++stage == static_cast<uint32_t>(job.stages)) {
        stage = 0;
        ++round;
      }
    }
  }

  // The parts of this block's k, ascending: use(k, part, address of x scales, w scale).
  template <class Use>
  __device__ void ForEachPart(const Use& use) const {
    WeightScales<Weights> w_scales(job, expert * job.n + output, k_begin, k_end);
    uint32_t stage = 0, round = 0;
    for (int32_t k = k_begin; k < k_end; ++k) {
      const float w_scale = w_scales.Next();
      BarrierWait(Full(stage), round & 1);
      float part[kRows / 2];
      MakePart<Weights, kRows>(part, Stage(stage), Stage(stage) + Layout::kX);
      use(k, part, Scales(stage), w_scale);
      __syncwarp();
      if (threadIdx.x % 32 == 0) BarrierArrive(Empty(stage));
      if (++stage == static_cast<uint32_t>(job.stages)) {
        stage = 0;
        ++round;
      }
    }
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

  // The sums of this block's k: all of it, or the parts for whoever adds them up.
  __device__ void MakeSums(float (&sum)[kRows / 2]) const {
    if (cluster == 1) {
      ForEachPart([&](int32_t, const float(&part)[kRows / 2], uint32_t x_scales, float w_scale) {
        AddPart<Weights, kRows>(sum, part, x_scales, w_scale);
      });
      return;
    }
    const uint32_t adder = AdderOf(threadIdx.x / 32);
    ForEachPart([&](int32_t k, const float(&part)[kRows / 2], uint32_t x_scales, float w_scale) {
      float scaled[kRows / 2] = {};
      AddPart<Weights, kRows>(scaled, part, x_scales, w_scale);
#pragma unroll
      for (int j = 0; j < kRows / 8; ++j) {
        StoreInCluster(AddressInBlock(PartAt(k, j), adder),
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
  RowTile rows{0, static_cast<int32_t>(blockIdx.y) * kRows, job.rows};
  if (job.tiles != nullptr) {
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
    PublishBarriers();
  }
  ClusterBarrier();
  const bool consumer = threadIdx.x < 128;
  float sum[kRows / 2] = {};
  if (consumer) {
    block.MakeSums(sum);
  } else if (threadIdx.x == 128) {
    block.Produce();
  }
  if (cluster > 1) {
    __syncwarp();
    ClusterBarrier();
    if (!consumer || block.AdderOf(threadIdx.x / 32) != rank) return;
    block.AddParts(sum);
  }
  if (consumer) block.Store(sum);
}

}  // namespace cairn::kernels::cuda::internal

#endif  // CAIRN_KERNELS_CUDA_LINEAR_FEW_CUH_
