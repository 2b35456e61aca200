// linear_job.h: what linear.cc hands to the product kernels: how a product is cut up.
//
// Two kernels. `Many`: blocks of 128 rows of x x 256 outputs, persistent, for when there are
// enough of these to fill the device. `Few`: 64 outputs x 8 to 64 rows; k may be shared by the
// blocks of a cluster, who bring their parts together and add them in k's order.
//
// Threads: values. Not for use outside of linear*; routing* cuts experts' rows itself.
#ifndef CAIRN_KERNELS_CUDA_LINEAR_JOB_H_
#define CAIRN_KERNELS_CUDA_LINEAR_JOB_H_

#include <cstdint>

#include "kernels/cuda/device.h"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/tensor_map.h"

namespace cairn::kernels::cuda::internal {

// Rows [begin, end) of x that go to one expert; at most as many as a block has.
struct RowTile {
  int32_t expert, begin, end;
};

// What CutExpertRows writes, in the scratch of the rows: on the device.
struct ExpertTiles {
  RowTile* tiles = nullptr;
  int32_t* count = nullptr;
  int rows_a_tile = 0;
};
// INVALID_ARGUMENT as CutExpertRows.
absl::StatusOr<ExpertTiles> ExpertTilesOf(const ExpertRows& rows);

struct LinearJob {
  int32_t n = 0;             // outputs of a matrix
  int32_t rows = 0;          // of x
  int32_t k_blocks = 0;      // of 128 bytes of x
  int32_t output_tiles = 0;  // of a matrix
  int32_t row_tiles = 0;
  int32_t group_outputs = 0;   // so many take the same columns of x
  const uint8_t* w = nullptr;  // FP4: its blocks; others come through the map
  int32_t w_block_rows = 0;    // FP4: rows of blocks, over all matrices
  const uint8_t* w_scales = nullptr;
  const float* x_scales = nullptr;  // FP4 of Many; others through the map
  int64_t x_scale_stride = 0;
  void* y = nullptr;
  int64_t y_stride = 0;
  int32_t y_f32 = 0;
  int32_t stages = 0;                   // Few
  const RowTile* tiles = nullptr;       // null: all rows of x to one matrix
  const int32_t* tile_count = nullptr;  // on the device; row_tiles is the most
};

struct LinearPlan {
  LinearJob job;
  TensorMap w, x;
  TensorMap x_scales;  // FP8, FP4
  TensorMap y;         // Many, BF16
  bool many = false;
  int rows_a_tile = 0;
  int cluster = 1;
};

// Cuts each expert's rows into tiles: tiles ascending, and how many there are.
absl::Status LaunchCut(Stream stream, const int32_t* offsets, int64_t experts,
                       const ExpertTiles& tiles);
absl::Status LaunchFp8(Stream stream, const LinearPlan& plan);
absl::Status LaunchFp4(Stream stream, const LinearPlan& plan);
absl::Status LaunchBf16(Stream stream, const LinearPlan& plan);

// Bytes of shared memory that Few takes where blocks share k, or 0: of the parts that a block
// makes, and of those that it adds up.
constexpr int64_t PartBytes(int64_t k_blocks, int64_t rows_a_tile, int64_t cluster) {
  if (cluster == 1) return 0;
  const int64_t adders = cluster < 4 ? cluster : 4;
  const int64_t made = (k_blocks + cluster - 1) / cluster;
  return made * rows_a_tile * 256 + k_blocks * rows_a_tile * 256 / adders;
}

}  // namespace cairn::kernels::cuda::internal

#endif  // CAIRN_KERNELS_CUDA_LINEAR_JOB_H_
