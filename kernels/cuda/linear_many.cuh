// linear_many.cuh: products large enough to fill the device with blocks of 128 rows x 256 outputs.
//
// A block: two warpgroups of consumers, and a thread that keeps the stages of shared memory full.
// While one warpgroup adds its part to its sums, the other one's is being made. For FP8 weights
// rows of x are the products' A (linear_rows.cuh), and a warpgroup has 64 rows. Weights that are
// decoded to registers must be A themselves (linear_parts.cuh), and a warpgroup has 128 outputs, as
// it has of BF16 weights. Two blocks of a cluster share their 256 outputs: each loads half of W for
// both. Blocks persist and take tile after tile, so the loads of a tile run under the results of
// the one before.
//
// kExperts: rows go to different matrices. It is a parameter because a count of tiles that comes
// from memory keeps the compiler from holding stages and descriptors in uniform registers.
#ifndef CAIRN_KERNELS_CUDA_LINEAR_MANY_CUH_
#define CAIRN_KERNELS_CUDA_LINEAR_MANY_CUH_

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/linear_parts.cuh"
#include "kernels/cuda/linear_rows.cuh"

namespace cairn::kernels::cuda::internal {

constexpr int kManyThreads = 384;
constexpr int kManyRows = 128;
constexpr int kManyOutputs = 256;

// Shared memory: stages of W and x, then staging of both warpgroups, each stage's x scales,
// barriers.
template <class Weights>
struct ManyLayout {
  static constexpr int kWBytes = 4 * Weights::kBlockBytes;
  static constexpr int kX = (kWBytes + 1023) / 1024 * 1024;  // in a stage
  static constexpr int kXBytes = kManyRows * kRowBytes;
  static constexpr int kStage = kX + kXBytes;
  static constexpr int kScaleBytes = kScaleBoxBytes<kManyRows>;
  static constexpr int kStaging = kManyRows * 128;
  static constexpr int kBarriers = 256;
  static constexpr int kStages =
      (kSharedBytesMax - 2 * kStaging - kBarriers) / (kStage + kScaleBytes);
  static constexpr int kStagingAt = kStages * kStage;
  static constexpr int kScalesAt = kStagingAt + 2 * kStaging;
  static constexpr int kBarriersAt = kScalesAt + kStages * kScaleBytes;
  static constexpr int kBytes = kBarriersAt + kBarriers;
  static_assert(kStages >= 3 && kStages * 16 <= kBarriers && kBytes <= kSharedBytesMax);
  static_assert(kStaging == 4 * kRowsStaging);
};

template <class Weights, bool kExperts>
struct ManyBlock {
  using Layout = ManyLayout<Weights>;
  // Scales of x come as a box, or else by a warp, in AddPartOrdered's order.
  static constexpr bool kScaleBoxes = Weights::kScaled && Weights::kRowsFirst;
  static constexpr bool kScaleWarp = Weights::kScaled && !Weights::kRowsFirst;
  const TensorMap& w_map;
  const TensorMap& x_map;
  const TensorMap& scales_map;
  const TensorMap& y_map;
  const LinearJob& job;
  uint32_t shared, rank, cluster;

  __device__ uint32_t Full(uint32_t stage) const {
    return shared + Layout::kBarriersAt + stage * 16;
  }
  __device__ uint32_t Empty(uint32_t stage) const { return Full(stage) + 8; }
  __device__ uint32_t W(uint32_t stage) const { return shared + stage * Layout::kStage; }
  __device__ uint32_t X(uint32_t stage) const { return W(stage) + Layout::kX; }
  __device__ uint32_t Scales(uint32_t stage) const {
    return shared + Layout::kScalesAt + stage * Layout::kScaleBytes;
  }

  template <class Do>
  __device__ void ForEachTile(const Do& what) const {
    const int32_t count = TileCount(job, kExperts, cluster);
    for (int32_t i = blockIdx.x / cluster; i < count; i += gridDim.x / cluster) {
      what(TileAt(job, kExperts, i, kManyOutputs, kManyRows, cluster, rank));
    }
  }

  // ---- loading ----

  // Half of the outputs' weights a block where two share them, and all of them in each.
  __device__ void LoadWeights(const Tile& tile, int32_t k_block, uint32_t stage) const {
    const int32_t first = tile.expert * job.n + tile.output;
    for (uint32_t half = 0; half < 2; ++half) {
      if (cluster == 2 && half != rank) continue;
      const uint32_t to = W(stage) + half * 2 * Weights::kBlockBytes;
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

  __device__ void Produce() const {
    constexpr uint32_t kBytes =
        Layout::kWBytes + Layout::kXBytes + (kScaleBoxes ? kScaleBox<kManyRows> * 4 : 0);
    StageCounter at;
    ForEachTile([&](const Tile& tile) {
      const int32_t x_block = tile.output / job.group_outputs * job.k_blocks;
      for (int32_t k = 0; k < job.k_blocks; ++k, at.Next(Layout::kStages)) {
        BarrierWait(Empty(at.stage), at.parity ^ 1);
        BarrierExpect(Full(at.stage), kBytes);
        LoadWeights(tile, k, at.stage);
        LoadBox(x_map, X(at.stage), Full(at.stage), (x_block + k) * Weights::kBlockK, tile.row);
        if constexpr (kScaleBoxes) {
          LoadBox(scales_map, Scales(at.stage), Full(at.stage), ScaleColumn(tile.row), k);
        }
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
        StoreSharedF32x4(Scales(at.stage) + lane * 16, v);
        __syncwarp();
        if (lane == 0) BarrierArrive(Full(at.stage));
      }
    });
  }

  // ---- products ----

  // Outputs behind the end have no scale, and need none.
  __device__ WeightScales<Weights> ScalesOf(const Tile& tile, int32_t output) const {
    return {job, tile.expert * job.n + min(output, job.n - 1), 0, job.k_blocks};
  }

  // A warp has read a stage.
  __device__ void Release(uint32_t stage) const {
    __syncwarp();
    if (threadIdx.x % 32 < cluster) BarrierArriveAt(Empty(stage), threadIdx.x % 32);
  }

  // A warpgroup's 64 rows and all outputs, 128 at a time.
  __device__ void ConsumeRows() const {
    const uint32_t group = threadIdx.x / 128;
    const uint32_t warp = threadIdx.x / 32;
    StageCounter at;
    ForEachTile([&](const Tile& tile) {
      WeightScales<Weights> low = ScalesOf(tile, tile.output);
      WeightScales<Weights> high = ScalesOf(tile, tile.output + kRowsOutputs);
      RowsSums sum[2] = {};
      for (int32_t k = 0; k < job.k_blocks; ++k, at.Next(Layout::kStages)) {
        const float w_scale[2] = {low.Next(), high.Next()};
        BarrierWait(Full(at.stage), at.parity);
        const float2 x_scale = RowScales(tile, at.stage, warp);
#pragma unroll
        for (uint32_t h = 0; h < 2; ++h) {
          RowsSums part;
          typename Weights::Held held;
          StartPart<Weights, kRowsOutputs>(part, held, X(at.stage) + group * kOutputs * kRowBytes,
                                           W(at.stage) + h * kRowsOutputs * kRowBytes);
          FinishPart<Weights, kRowsOutputs, 0>(part, held);
          if (h == 1) Release(at.stage);
          AddRows(sum[h], part, x_scale.x * w_scale[h], x_scale.y * w_scale[h]);
        }
      }
      StoreRows(sum, tile, warp);
    });
    if (threadIdx.x % 32 == 0) WaitForStores();
  }

  // Of a thread's two rows.
  __device__ float2 RowScales(const Tile& tile, uint32_t stage, uint32_t warp) const {
    const uint32_t at = Scales(stage) + ScaleOffset(tile.row) + (16 * warp + RowOfLane()) * 4;
    return {LoadSharedF32(at), LoadSharedF32(at + 32)};
  }

  __device__ void StoreRows(const RowsSums (&sum)[2], const Tile& tile, uint32_t warp) const {
    const int32_t row = tile.row + static_cast<int32_t>(warp) * 16;
    // Experts' rows lie side by side: what is not full must not write beyond its own.
    const bool whole = !kExperts || row + 16 <= tile.rows_end;
#pragma unroll
    for (int32_t h = 0; h < 2; ++h) {
      const Target to = TargetAt(job, tile.output + h * kRowsOutputs, row, tile.rows_end);
      if (job.y_f32 != 0) {
        StoreRowsF32(sum[h], to);
      } else {
        StoreRowsBf16(sum[h], to, y_map, whole, shared + Layout::kStagingAt + warp * kRowsStaging);
      }
    }
  }

  // All rows and a warpgroup's 128 outputs, 64 at a time.
  __device__ void ConsumeOutputs() const {
    const uint32_t group = threadIdx.x / 128;
    StageCounter at;
    ForEachTile([&](const Tile& tile) {
      const int32_t output = tile.output + static_cast<int32_t>(group) * 2 * kOutputs;
      WeightScales<Weights> low = ScalesOf(tile, output);
      WeightScales<Weights> high = ScalesOf(tile, output + kOutputs);
      float sum[2][kManyRows / 2] = {};
      for (int32_t k = 0; k < job.k_blocks; ++k, at.Next(Layout::kStages)) {
        const float w_scale[2] = {low.Next(), high.Next()};
        BarrierWait(Full(at.stage), at.parity);
#pragma unroll
        for (uint32_t h = 0; h < 2; ++h) {
          float part[kManyRows / 2];
          typename Weights::Held held;
          StartPart<Weights, kManyRows>(
              part, held, W(at.stage) + (2 * group + h) * Weights::kBlockBytes, X(at.stage));
          FinishPart<Weights, kManyRows, 0>(part, held);
          AddPartOrdered<Weights, kManyRows>(sum[h], part, Scales(at.stage), w_scale[h]);
        }
        Release(at.stage);
      }
      StoreOutputs(sum, tile, output, group);
    });
    if (threadIdx.x % 128 == 0) WaitForStores();
  }

  __device__ void StoreOutputs(const float (&sum)[2][kManyRows / 2], const Tile& tile,
                               int32_t output, uint32_t group) const {
    const bool whole = !kExperts || tile.rows_end - tile.row == kManyRows;
#pragma unroll
    for (int32_t h = 0; h < 2; ++h) {
      const Target to = TargetAt(job, output + h * kOutputs, tile.row, tile.rows_end);
      if (job.y_f32 != 0) {
        StoreF32<kManyRows>(sum[h], to);
      } else {
        StoreBf16Staged<kManyRows>(sum[h], to, y_map, whole,
                                   shared + Layout::kStagingAt + group * Layout::kStaging,
                                   1 + group);
      }
    }
  }
};

template <class Weights, bool kExperts>
__global__ void __launch_bounds__(kManyThreads, 1)
    ManyKernel(const __grid_constant__ TensorMap w_map, const __grid_constant__ TensorMap x_map,
               const __grid_constant__ TensorMap scales_map,
               const __grid_constant__ TensorMap y_map, const __grid_constant__ LinearJob job) {
  extern __shared__ __align__(1024) uint8_t shared_bytes[];
  const uint32_t cluster = ClusterSize();
  const ManyBlock<Weights, kExperts> block{
      w_map, x_map, scales_map, y_map, job, SharedAddress(shared_bytes), ClusterRank(), cluster};
  if (threadIdx.x == 0) {
    for (uint32_t s = 0; s < ManyLayout<Weights>::kStages; ++s) {
      BarrierInit(block.Full(s), block.kScaleWarp ? 2 : 1);  // what was expected came; the scales
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
    if constexpr (Weights::kRowsFirst) {
      block.ConsumeRows();
    } else {
      block.ConsumeOutputs();
    }
  } else {
    GiveRegisters<40>();
    if (threadIdx.x == 256) block.Produce();
    if (block.kScaleWarp && threadIdx.x / 32 == 9) block.LoadScales();
    __syncwarp();
  }
  // The other block of the cluster loads to here, and arrives at barriers, until it is done.
  ClusterBarrier();
}

}  // namespace cairn::kernels::cuda::internal

#endif  // CAIRN_KERNELS_CUDA_LINEAR_MANY_CUH_
