#include "store/device/cuda_status.h"

#include <cuda_runtime_api.h>

namespace cairn::store {

absl::Status CudaStatus(int error, absl::string_view what) {
  const auto code = static_cast<cudaError_t>(error);
  if (code == cudaSuccess) return absl::OkStatus();
  // The runtime remembers it for whoever asks next; it has been told here.
  static_cast<void>(cudaGetLastError());
  const std::string message = absl::StrCat("CUDA: ", what, ": ", cudaGetErrorString(code));
  switch (code) {
    case cudaErrorMemoryAllocation:
      return absl::ResourceExhaustedError(message);
    case cudaErrorNoDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorSystemDriverMismatch:
    case cudaErrorCompatNotSupportedOnDevice:
      return absl::UnavailableError(message);
    default:
      return absl::InternalError(message);
  }
}

}  // namespace cairn::store
