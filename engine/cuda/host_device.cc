// For tests of what is done on the host only: a device whose memory is the host's, in place of the
// library of kernels/cuda. It gathers and runs no other kernel.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "kernels/cuda/gather.h"
#include "kernels/cuda/pinned_buffer.h"

namespace cairn::kernels::cuda {

absl::Status Synchronize(Stream) { return absl::OkStatus(); }

namespace internal {

absl::StatusOr<void*> Allocate(size_t bytes) { return std::malloc(bytes); }
void Free(void* pointer) { std::free(pointer); }
absl::Status CopyToDevice(void* to, const void* from, size_t bytes) {
  std::memcpy(to, from, bytes);
  return absl::OkStatus();
}
absl::Status CopyOn(Stream, void* to, const void* from, size_t bytes) {
  return CopyToDevice(to, from, bytes);
}
absl::Status Fill(void* to, int byte, size_t bytes) {
  std::memset(to, byte, bytes);
  return absl::OkStatus();
}

}  // namespace internal

absl::StatusOr<PinnedBuffer> PinnedBuffer::Create(size_t bytes) {
  return PinnedBuffer({static_cast<uint8_t*>(std::malloc(bytes)), bytes});
}
PinnedBuffer::~PinnedBuffer() { std::free(bytes_.data()); }

absl::Status CopySegments(Stream, const SegmentCopy* segments, int64_t count, int64_t bytes_max) {
  for (int64_t i = 0; i < count; ++i) {
    std::memcpy(segments[i].to, segments[i].from,
                static_cast<size_t>(std::min(segments[i].bytes, bytes_max)));
  }
  return absl::OkStatus();
}

}  // namespace cairn::kernels::cuda
