// In place of cuda_gpu.cc where CUDA is not.
#include "store/device/gpu_memory.h"

namespace cairn::store {

absl::StatusOr<std::unique_ptr<Gpu>> OpenGpu(const GpuOptions&) {
  return absl::UnavailableError("no GPU: this program was built without CUDA");
}

}  // namespace cairn::store
