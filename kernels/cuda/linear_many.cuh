// linear_many.cuh: products large enough to fill the device with blocks of 256 outputs x kRows
// rows.
//
// A block: two warpgroups of consumers, each with 128 outputs, and a thread that keeps the stages
// of shared memory full. While one warpgroup adds its part to its sums, the other one's is being
// made. Two blocks of a cluster share their 256 outputs: each loads half of W for both. Blocks
// persist and take tile after tile, so the loads of a tile run under the results of the one before.
#ifndef CAIRN_KERNELS_CUDA_LINEAR_MANY_CUH_
#define CAIRN_KERNELS_CUDA_LINEAR_MANY_CUH_

#include "kernels/cuda/linear_parts.cuh"
#include "kernels/cuda/launch.cuh"

namespace cairn::kernels::cuda::internal {

constexpr int kManyThreads = 384;
constexpr int kManyOutputs = 256;

// Shared memory: stages of W and x, then each stage's x scales
// (in the order of AddPartOrdered), then staging of both warpgroups,
// then barriers.
template <class Weights, int kRows>
struct ManyLayout {
  static constexpr int kWBytes = 4 * Weights::kBlockBytes;
  static constexpr int kX = (kWBytes + 1023) / 1024 * 1024;  // in a stage
  static constexpr int kXBytes = kRows * kRowBytes;
  static constexpr int kStage = kX + kXBytes;
  static constexpr int kScaleBytes = kRows * 4;
  static constexpr int kStaging = kRows * 128;
  static constexpr int kBarriers = 256;
  static constexpr int kStages =
      (kSharedBytesMax - 2 * kStaging - kBarriers) / (kStage + kScaleBytes);
  static constexpr int kStagingAt = kStages * kStage;
  static constexpr int kScalesAt = kStagingAt + 2 * kStaging;
  static constexpr int kBarriersAt = kScalesAt + kStages * kScaleBytes;
  static constexpr int kBytes = kBarriersAt + kBarriers;
  static_assert(kStages >= 3 && kStages * 16 <= kBarriers && kBytes <= kSharedBytesMax);
};

template <class Weights, int kRows>
struct ManyBlock {
  using Layout = ManyLayout<Weights, kRows>;
  const TensorMap& w_map;
  const TensorMap& x_map;
  const TensorMap& y_map;
  const LinearJob& job;
  uint32_t shared, rank, cluster;

  __device__ uint32_t Full(uint32_t stage) const {
    return shared + Layout::kBarriersAt + stage * 16;
  }
  __device__ uint32_t Empty(uint32_t stage) const { return Full(stage) + 8; }
  __device__ uint32_t Stage(uint32_t stage) const { return shared + stage * Layout::kStage; }
  __device__ uint32_t Scales(uint32_t stage) const {
    return shared + Layout::kScalesAt + stage * Layout::kScaleBytes;
  }

  // Half of the outputs' weights a block where two share them, and all of them in each.
  __device__ void LoadWeights(const Tile& tile, int32_t k_block, uint32_t stage) const {
    const int32_t first = tile.expert * job.n + tile.output;
    for (uint32_t half = 0; half < 2; ++half) {
      if (cluster == 2 && half != rank) continue;
      const uint32_t to = Stage(stage) + half * 2 * Weights::kBlockBytes;
      const int32_t column = k_block * Weights::kBlockK;
      const int32_t row = first + static_cast<int32_t>(half) * 2 * kOutputs;
      if constexpr (Weights::kPieces) {
        for (int32_t i = 0; i < 2; ++i) {
          Weights::LoadBlock(job, row / kOutputs + i, k_block, to + i * Weights::kBlockBytes,
                             Full(stage), cluster == 2 ? 3 : 1);
        }
      } else if (cluster == 2) {
        LoadBoxToMany(w_map, to, Full(stage), column, row, 3);
      } else {
        LoadBox(w_map, to, Full(stage), column, row);
      }
    }
  }

  template <class Do>
  __device__ void ForEachTile(const Do& what) const {
    const int32_t count = TileCount(job, cluster);
    for (int32_t i = blockIdx.x / cluster; i < count; i += gridDim.x / cluster) {
      what(TileAt(job, i, kManyOutputs, kRows, cluster, rank));
    }
  }

  __device__ void Produce() const {
    StageCounter at;
    ForEachTile([&](const Tile& tile) {
      const int32_t x_block = tile.output / job.group_outputs * job.k_blocks;
      for (int32_t k = 0; k < job.k_blocks; ++k, at.Next(Layout::kStages)) {
        BarrierWait(Empty(at.stage), at.parity ^ 1);
        BarrierExpect(Full(at.stage), Layout::kWBytes + Layout::kXBytes);
        LoadWeights(tile, k, at.stage);
        LoadBox(x_map, Stage(at.stage) + Layout::kX, Full(at.stage),
                (x_block + k) * Weights::kBlockK, tile.row);
      }
    });
  }

  // A warp: each lane has four rows.
  __device__ void LoadScales() const {
    const int32_t lane = static_cast<int32_t>(threadIdx.x) % 32;
    const int32_t first = lane / 4 * 16 + lane % 4 * 2;
    StageCounter at;
    ForEachTile([&](const Tile& tile) {
      for (int32_t k = 0; k < job.k_blocks; ++k, at.Next(Layout::kStages)) {
        const float* const column = job.x_scales + k * job.x_scale_stride;
        const auto scale = [&](int32_t row) {
          return row < tile.rows_end ? __ldg(column + row) : 0.0f;
        };
        const int32_t row = tile.row + first;
        const float4 v = {scale(row), scale(row + 1), scale(row + 8), scale(row + 9)};
        BarrierWait(Empty(at.stage), at.parity ^ 1);
        if (4 * lane < kRows) StoreSharedF32x4(Scales(at.stage) + lane * 16, v);
        __syncwarp();
        if (lane == 0) BarrierArrive(Full(at.stage));
      }
    });
  }

  __device__ void Consume() const {
    const uint32_t group = threadIdx.x / 128;
    const uint32_t lane = threadIdx.x % 32;
    StageCounter at;
    ForEachTile([&](const Tile& tile) {
      const int32_t output = tile.output + static_cast<int32_t>(group) * 2 * kOutputs;
      WeightScales<Weights> low = ScalesOf(tile, output);
      WeightScales<Weights> high = ScalesOf(tile, output + kOutputs);
      float sum[2][kRows / 2] = {};
      for (int32_t k = 0; k < job.k_blocks; ++k, at.Next(Layout::kStages)) {
        const float w_scale[2] = {low.Next(), high.Next()};
        BarrierWait(Full(at.stage), at.parity);
#pragma unroll
        for (uint32_t h = 0; h < 2; ++h) {
          float part[kRows / 2];
          typename Weights::Held held;
          StartPart<Weights, kRows>(part, held,
                                    Stage(at.stage) + (2 * group + h) * Weights::kBlockBytes,
                                    Stage(at.stage) + Layout::kX);
          FinishPart<Weights, kRows, 0>(part, held);
          AddPartOrdered<Weights, kRows>(sum[h], part, Scales(at.stage), w_scale[h]);
        }
        __syncwarp();
        if (lane < cluster) BarrierArriveAt(Empty(at.stage), lane);
      }
#pragma unroll
      for (int32_t h = 0; h < 2; ++h) {
        const Target to = TargetAt(job, output + h * kOutputs, tile.row, tile.rows_end);
        if (job.y_f32 != 0) {
          StoreF32<kRows>(sum[h], to);
        } else {
          // Experts' rows lie side by side: a tile that is not full must not write beyond its own.
          const bool whole = job.tiles == nullptr || tile.rows_end - tile.row == kRows;
          StoreBf16Staged<kRows>(sum[h], to, y_map, whole,
                                 shared + Layout::kStagingAt + group * Layout::kStaging, 1 + group);
        }
      }
    });
    if (threadIdx.x % 128 == 0) WaitForStores();
  }

  // Outputs behind the end have no scale, and need none.
  __device__ WeightScales<Weights> ScalesOf(const Tile& tile, int32_t output) const {
    return {job, tile.expert * job.n + min(output, job.n - 1), 0, job.k_blocks};
  }
};

template <class Weights, int kRows>
__global__ void __launch_bounds__(kManyThreads, 1)
    ManyKernel(const __grid_constant__ TensorMap w_map, const __grid_constant__ TensorMap x_map,
               const __grid_constant__ TensorMap y_map, const __grid_constant__ LinearJob job) {
  extern __shared__ __align__(1024) uint8_t shared_bytes[];
  const uint32_t cluster = ClusterSize();
  const ManyBlock<Weights, kRows> block{
      w_map, x_map, y_map, job, SharedAddress(shared_bytes), ClusterRank(), cluster};
  if (threadIdx.x == 0) {
    for (uint32_t s = 0; s < ManyLayout<Weights, kRows>::kStages; ++s) {
      BarrierInit(block.Full(s), Weights::kScaled ? 2 : 1);  // what was expected came; the scales
      BarrierInit(block.Empty(s), 8 * cluster);              // a warp of consumers each
    }
    PublishBarriers();
  }
  __syncthreads();
  ClusterBarrier();
  LetNextStart();
  WaitForKernelsBefore();
  if (threadIdx.x < 256) {
    TakeRegisters<232>();
    block.Consume();
  } else {
    GiveRegisters<40>();
    if (threadIdx.x == 256) block.Produce();
    if (Weights::kScaled && threadIdx.x / 32 == 9) block.LoadScales();
    __syncwarp();
  }
  // The other block of the cluster loads to here, and arrives at barriers, until it is done.
  ClusterBarrier();
}

}  // namespace cairn::kernels::cuda::internal

#endif  // CAIRN_KERNELS_CUDA_LINEAR_MANY_CUH_
