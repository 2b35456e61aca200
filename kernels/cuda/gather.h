// gather.h: many copies in one launch, between a sequence's state (a layer's rows side by side) and
// cache entries (all layers of a block side by side). Who copies what is in an array of the device,
// made from the layout's offsets (engine/state/kv_layout.h).
//
// Threads: any. Units: bytes. Errors: INVALID_ARGUMENT, naming the bound.
#ifndef CAIRN_KERNELS_CUDA_GATHER_H_
#define CAIRN_KERNELS_CUDA_GATHER_H_

#include <cstdint>

#include "kernels/cuda/device.h"

namespace cairn::kernels::cuda {

// Of any alignment; words of 16 bytes, or of 8, are moved where both ends and the length allow it.
// Either end may be pinned host memory that the device can address.
struct SegmentCopy {
  const void* from = nullptr;
  void* to = nullptr;
  int64_t bytes = 0;
};

// No destination overlaps another segment. bytes_max: no segment is longer; what is beyond it is
// not copied.
absl::Status CopySegments(Stream stream, const SegmentCopy* segments, int64_t count,
                          int64_t bytes_max);

}  // namespace cairn::kernels::cuda

#endif  // CAIRN_KERNELS_CUDA_GATHER_H_
