#include "kernels/cuda/gather.h"

#include <algorithm>

#include "kernels/cuda/row_math.cuh"

namespace cairn::kernels::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int64_t kPieceBytes = 4096;  // of a segment, for a warp at a time: all of it is in flight
constexpr int64_t kPiecesMax = 1 << 20;

// Up to kPieceBytes; bytes is a multiple of the word.
template <typename Word>
__device__ inline void CopyPiece(const void* from, void* to, int bytes, int lane) {
  constexpr int kWords = static_cast<int>(kPieceBytes / sizeof(Word)) / kLanes;
  const int words = bytes / static_cast<int>(sizeof(Word));
  Word held[kWords];
#pragma unroll
  for (int i = 0; i < kWords; ++i) {
    if (lane + i * kLanes < words) held[i] = static_cast<const Word*>(from)[lane + i * kLanes];
  }
#pragma unroll
  for (int i = 0; i < kWords; ++i) {
    if (lane + i * kLanes < words) static_cast<Word*>(to)[lane + i * kLanes] = held[i];
  }
}

__device__ inline void CopyBytes(const void* from, void* to, int bytes, int lane) {
#pragma unroll 8
  for (int i = lane; i < bytes; i += kLanes) {
    static_cast<uint8_t*>(to)[i] = static_cast<const uint8_t*>(from)[i];
  }
}

__global__ void __launch_bounds__(kWarps* kLanes)
    CopySegmentsKernel(const SegmentCopy* segments, int64_t count, int64_t pieces) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.y;
  if (i >= count * pieces) return;
  const SegmentCopy segment = segments[i / pieces];
  const uintptr_t low = reinterpret_cast<uintptr_t>(segment.from) |
                        reinterpret_cast<uintptr_t>(segment.to) |
                        static_cast<uintptr_t>(segment.bytes);
  for (int64_t at = i % pieces * kPieceBytes; at < segment.bytes; at += pieces * kPieceBytes) {
    const void* const from = static_cast<const uint8_t*>(segment.from) + at;
    void* const to = static_cast<uint8_t*>(segment.to) + at;
    const int bytes = static_cast<int>(min(kPieceBytes, segment.bytes - at));
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
  if (count == 0) return absl::OkStatus();
  const int64_t fit = ((int64_t{1} << 31) - 1) * kWarps / count;
  const int64_t pieces = std::clamp(CeilDiv(bytes_max, kPieceBytes), int64_t{1},
                                    std::max(int64_t{1}, std::min(fit, kPiecesMax)));
  CopySegmentsKernel<<<static_cast<unsigned>(CeilDiv(count * pieces, int64_t{kWarps})),
                       dim3(kLanes, kWarps), 0, stream>>>(segments, count, pieces);
  return LaunchStatus("CopySegments");
}

}  // namespace cairn::kernels::cuda
