#include "kernels/cuda/pinned_buffer.h"

#include <cuda_runtime_api.h>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/device.h"

namespace cairn::kernels::cuda {

absl::StatusOr<PinnedBuffer> PinnedBuffer::Create(size_t bytes) {
  CAIRN_RETURN_IF_ERROR(DevicePresent());
  void* pointer = nullptr;
  CAIRN_RETURN_IF_ERROR(CudaStatus(cudaMallocHost(&pointer, bytes),
                                   absl::StrCat("taking ", bytes, " bytes of pinned memory")));
  return PinnedBuffer({static_cast<uint8_t*>(pointer), bytes});
}

PinnedBuffer::~PinnedBuffer() {
  if (!bytes_.empty()) cudaFreeHost(bytes_.data());
}

}  // namespace cairn::kernels::cuda
