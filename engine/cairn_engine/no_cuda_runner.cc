// In place of cuda_runner.cc where CUDA is not.
#include "engine/cairn_engine/cuda_runner.h"

namespace cairn::engine {

absl::StatusOr<std::unique_ptr<SequenceRunner>> OpenCudaRunner(const std::string&,
                                                               const CudaRunnerOptions&) {
  return absl::UnavailableError(
      "this cairn-engine was built without CUDA (no nvcc was found); use --device cpu");
}

}  // namespace cairn::engine
