// linear_launch.cuh: a planned product with one format of weights put on a stream. Each format's
// .cu instantiates it.
#ifndef CAIRN_KERNELS_CUDA_LINEAR_LAUNCH_CUH_
#define CAIRN_KERNELS_CUDA_LINEAR_LAUNCH_CUH_

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/linear_few.cuh"
#include "kernels/cuda/linear_many.cuh"

namespace cairn::kernels::cuda::internal {

using LinearKernel = void (*)(TensorMap, TensorMap, TensorMap, TensorMap, LinearJob);

inline absl::Status LaunchLinear(Stream stream, const LinearPlan& plan, LinearKernel kernel,
                                 const LaunchShape& shape) {
  CAIRN_RETURN_IF_ERROR(
      CudaStatus(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                      static_cast<int>(shape.shared_bytes)),
                 absl::StrCat("a product's ", shape.shared_bytes, " bytes of shared memory")));
  return LaunchEarly(stream, "Linear", shape, kernel, plan.w, plan.x, plan.x_scales, plan.y,
                     plan.job);
}

template <class Weights>
absl::Status LaunchMany(Stream stream, const LinearPlan& plan) {
  const int blocks = MultiprocessorCount() / plan.cluster * plan.cluster;
  const bool experts = plan.job.tiles != nullptr;
  return LaunchLinear(stream, plan,
                      experts ? ManyKernel<Weights, true> : ManyKernel<Weights, false>,
                      {dim3(static_cast<unsigned>(blocks)), kManyThreads,
                       ManyLayout<Weights>::kBytes, static_cast<unsigned>(plan.cluster)});
}

// Where there are more tiles than multiprocessors: two blocks on each, so that two more, of the
// next kernel, can begin beside them (three, of experts' few rows, whose products wait for
// decoding). Else a block a tile, or a cluster, with as much in flight as there is room for.
template <class Weights, int kRows>
absl::Status LaunchFew(Stream stream, const LinearPlan& plan) {
  using Layout = FewLayout<Weights, kRows>;
  LinearPlan planned = plan;
  LinearJob& job = planned.job;
  const int64_t part_bytes = PartBytes(job.k_blocks, kRows, plan.cluster);
  int64_t blocks = int64_t{job.output_tiles} * job.row_tiles * plan.cluster;
  if (blocks > MultiprocessorCount()) {
    job.stages = kFewStages;
    const int64_t beside = job.tiles != nullptr && kRows == 8 ? 3 : 2;
    if (plan.cluster == 1) blocks = std::min(blocks, beside * MultiprocessorCount());
  } else {
    const int32_t own_k = (job.k_blocks + plan.cluster - 1) / plan.cluster;
    job.stages = std::min(Layout::StagesAlone(part_bytes), own_k);
  }
  return LaunchLinear(stream, planned, FewKernel<Weights, kRows>,
                      {dim3(static_cast<unsigned>(blocks)), kFewThreads,
                       Layout::Bytes(job.stages, part_bytes), static_cast<unsigned>(plan.cluster)});
}

template <class Weights>
absl::Status Launch(Stream stream, const LinearPlan& plan) {
  if (plan.many) return LaunchMany<Weights>(stream, plan);
  switch (plan.rows_a_tile) {
    case 8:
      return LaunchFew<Weights, 8>(stream, plan);
    case 16:
      return LaunchFew<Weights, 16>(stream, plan);
    case 32:
      return LaunchFew<Weights, 32>(stream, plan);
    default:
      return LaunchFew<Weights, 64>(stream, plan);
  }
}

}  // namespace cairn::kernels::cuda::internal

#endif  // CAIRN_KERNELS_CUDA_LINEAR_LAUNCH_CUH_
