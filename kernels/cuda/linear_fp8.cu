#include "kernels/cuda/linear_launch.cuh"

namespace cairn::kernels::cuda::internal {

absl::Status LaunchFp8(Stream stream, const LinearPlan& plan) {
  return Launch<Fp8Weights>(stream, plan);
}

}  // namespace cairn::kernels::cuda::internal
