#include "kernels/cuda/linear_launch.cuh"

namespace cairn::kernels::cuda::internal {

absl::Status LaunchBf16(Stream stream, const LinearPlan& plan) {
  return Launch<Bf16Weights>(stream, plan);
}

}  // namespace cairn::kernels::cuda::internal
