// In place of cuda_runner.cc and cuda_batch_runner.cc where CUDA is not.
#include "engine/cairn_engine/cuda_batch_runner.h"
#include "engine/cairn_engine/cuda_runner.h"

namespace cairn::engine {
namespace {

absl::Status WithoutCuda() {
  return absl::UnavailableError(
      "this cairn-engine was built without CUDA (no nvcc was found); use --device cpu");
}

}  // namespace

absl::StatusOr<std::unique_ptr<SequenceRunner>> OpenCudaRunner(const std::string&,
                                                               const CudaRunnerOptions&) {
  return WithoutCuda();
}

absl::StatusOr<std::unique_ptr<CudaBatchRunner>> OpenCudaBatchRunner(const std::string&,
                                                                     const CudaBatchOptions&) {
  return WithoutCuda();
}

}  // namespace cairn::engine
