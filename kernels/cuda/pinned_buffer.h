// pinned_buffer.h: memory of the host that kernels read and write at the same address. What they
// wrote is there once their stream was waited for.
//
// Threads: any. Ownership: move-only, frees what it holds. Units: bytes.
// Errors:  as DeviceBuffer's (device.h).
#ifndef CAIRN_KERNELS_CUDA_PINNED_BUFFER_H_
#define CAIRN_KERNELS_CUDA_PINNED_BUFFER_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "store/base/status.h"

namespace cairn::kernels::cuda {

class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  static absl::StatusOr<PinnedBuffer> Create(size_t bytes);
  PinnedBuffer(PinnedBuffer&& other) noexcept { *this = std::move(other); }
  PinnedBuffer& operator=(PinnedBuffer&& other) noexcept {
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~PinnedBuffer();

  std::span<uint8_t> bytes() const { return bytes_; }

 private:
  explicit PinnedBuffer(std::span<uint8_t> bytes) : bytes_(bytes) {}
  std::span<uint8_t> bytes_;
};

}  // namespace cairn::kernels::cuda

#endif  // CAIRN_KERNELS_CUDA_PINNED_BUFFER_H_
