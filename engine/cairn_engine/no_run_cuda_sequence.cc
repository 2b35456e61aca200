// In place of run_cuda_sequence.cc where CUDA is not.
#include "engine/cairn_engine/run_cuda_sequence.h"

namespace cairn::engine {

absl::StatusOr<SequenceResult> RunCudaSequence(const std::string&, Clock&, std::span<const int32_t>,
                                               const SequenceOptions&) {
  return absl::UnavailableError(
      "this cairn-engine was built without CUDA (no nvcc was found); use --device cpu");
}

}  // namespace cairn::engine
