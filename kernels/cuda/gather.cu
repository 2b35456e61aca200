#include "kernels/cuda/gather.h"

#include <algorithm>

#include "kernels/cuda/row_math.cuh"

namespace cairn::kernels::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int64_t kPieceBytes = 4096;  // of a segment, for a warp at a time: all of it is in flight
constexpr int kBlocksOfMultiprocessor = 6;

// bytes is a multiple of the word.
template <typename Word>
__device__ inline void CopyPiece(const void* from, void* to, int bytes, int lane) {
  constexpr int kInFlight = 8;
  const int words = bytes / static_cast<int>(sizeof(Word));
  for (int first = lane; first < words; first += kInFlight * kLanes) {
    Word held[kInFlight];
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      if (first + i * kLanes < words) held[i] = static_cast<const Word*>(from)[first + i * kLanes];
    }
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      if (first + i * kLanes < words) static_cast<Word*>(to)[first + i * kLanes] = held[i];
    }
  }
}

__device__ inline void CopyBytes(const void* from, void* to, int bytes, int lane) {
#pragma unroll 4
  for (int i = lane; i < bytes; i += kLanes) {
    static_cast<uint8_t*>(to)[i] = static_cast<const uint8_t*>(from)[i];
  }
}

// Each warp takes every so many-th of the pieces: all segments' first, then all their second, ...
// While it copies one, the next one's segment is on its way.
__global__ void __launch_bounds__(kWarps* kLanes, kBlocksOfMultiprocessor)
    CopySegmentsKernel(const SegmentCopy* segments, int64_t count, int64_t pieces) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kWarps;
  const int64_t stride_pieces = stride / count;
  const int64_t stride_rest = stride % count;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.y;
  int64_t piece = first / count;
  int64_t at = first % count;
  SegmentCopy next = segments[at];
  while (piece < pieces) {
    const SegmentCopy segment = next;
    const int64_t offset = piece * kPieceBytes;
    piece += stride_pieces;
    at += stride_rest;
    if (at >= count) {
      at -= count;
      ++piece;
    }
    next = segments[at];
    if (offset >= segment.bytes) continue;
    const void* const from = static_cast<const uint8_t*>(segment.from) + offset;
    void* const to = static_cast<uint8_t*>(segment.to) + offset;
    const int bytes = static_cast<int>(min(kPieceBytes, segment.bytes - offset));
    const uintptr_t low = reinterpret_cast<uintptr_t>(from) | reinterpret_cast<uintptr_t>(to) |
                          static_cast<uintptr_t>(bytes);
    if (low % sizeof(uint4) == 0) {
      CopyPiece<uint4>(from, to, bytes, threadIdx.x);
    } else if (low % sizeof(uint2) == 0) {
      CopyPiece<uint2>(from, to, bytes, threadIdx.x);
    } else {
      CopyBytes(from, to, bytes, threadIdx.x);
    }
  }
}

}  // namespace

absl::Status CopySegments(Stream stream, const SegmentCopy* segments, int64_t count,
                          int64_t bytes_max) {
  CAIRN_RETURN_IF_ERROR(Require(count >= 0 && count <= (int64_t{1} << 31) && bytes_max >= 0,
                                "CopySegments: count not in [0, 2^31], or bytes_max under 0"));
  const int64_t pieces = CeilDiv(bytes_max, kPieceBytes);
  if (count == 0 || pieces == 0) return absl::OkStatus();
  const int64_t most = int64_t{MultiprocessorCount()} * kBlocksOfMultiprocessor;
  const int64_t blocks = std::min(most, CeilDiv(count * pieces, int64_t{kWarps}));
  CopySegmentsKernel<<<static_cast<unsigned>(blocks), dim3(kLanes, kWarps), 0, stream>>>(
      segments, count, pieces);
  return LaunchStatus("CopySegments");
}

}  // namespace cairn::kernels::cuda
