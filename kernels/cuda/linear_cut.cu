#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/linear_job.h"

namespace cairn::kernels::cuda::internal {
namespace {

constexpr int kThreads = 1024;

// One block; a thread an expert. Its first tile is the sum of the tiles before it.
__global__ void __launch_bounds__(kThreads)
    CutKernel(const int32_t* offsets, int32_t experts, ExpertTiles to) {
  LetNextStart();
  WaitForKernelsBefore();
  __shared__ int32_t sums[kThreads];
  const int32_t thread = static_cast<int32_t>(threadIdx.x);
  const int32_t begin = thread < experts ? offsets[thread] : 0;
  const int32_t end = thread < experts ? offsets[thread + 1] : 0;
  const int32_t own = (end - begin + to.rows_a_tile - 1) / to.rows_a_tile;
  int32_t sum = own;
  for (int32_t step = 1; step < kThreads; step *= 2) {
    sums[thread] = sum;
    __syncthreads();
    if (thread >= step) sum += sums[thread - step];
    __syncthreads();
  }
  for (int32_t i = 0; i < own; ++i) {
    const int32_t first = begin + i * to.rows_a_tile;
    to.tiles[sum - own + i] = {thread, first, min(first + to.rows_a_tile, end)};
  }
  if (thread == kThreads - 1) *to.count = sum;
}

}  // namespace

absl::Status LaunchCut(Stream stream, const int32_t* offsets, int64_t experts,
                       const ExpertTiles& tiles) {
  return LaunchEarly(stream, "CutExpertRows", {1, kThreads}, CutKernel, offsets,
                     static_cast<int32_t>(experts), tiles);
}

}  // namespace cairn::kernels::cuda::internal
