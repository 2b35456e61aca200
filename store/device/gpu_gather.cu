#include <cuda_runtime_api.h>

#include <algorithm>

#include "store/device/cuda_status.h"
#include "store/device/gpu_gather.h"

namespace cairn::store {
namespace {

constexpr uint32_t kWarp = 32;
constexpr uint32_t kThreads = 256;
constexpr uint32_t kWarpsPerBlock = kThreads / kWarp;

// What a warp has on its way at once. Over the bus to the host a few blocks with much are enough.
constexpr uint32_t kDevicePieceBytes = 2048;
constexpr uint32_t kHostPieceBytes = 4096;
constexpr uint32_t kHostBlocks = 32;

struct Part {
  GpuGatherPart what;
  uint32_t pieces_each;  // of one source
  uint32_t pieces_end;   // of this part and all before it
};

struct Plan {
  Part parts[kGatherPartsMax];
};

__device__ uint4 LoadOnce(const uint4* from) { return __ldcs(from); }
__device__ uint2 LoadOnce(const uint2* from) { return __ldcs(from); }

// All loads before the first store: they are on their way together.
template <typename Word, uint32_t kPieceBytes>
__device__ void CopyPiece(const uint8_t* from, uint8_t* to, uint32_t bytes, uint32_t lane) {
  constexpr uint32_t kLoads = kPieceBytes / (kWarp * sizeof(Word));
  const auto* const source = reinterpret_cast<const Word*>(from);
  auto* const destination = reinterpret_cast<Word*>(to);
  const uint32_t words = bytes / sizeof(Word);
  Word held[kLoads];
#pragma unroll
  for (uint32_t i = 0; i < kLoads; ++i) {
    if (const uint32_t at = i * kWarp + lane; at < words) held[i] = LoadOnce(source + at);
  }
#pragma unroll
  for (uint32_t i = 0; i < kLoads; ++i) {
    if (const uint32_t at = i * kWarp + lane; at < words) destination[at] = held[i];
  }
}

// A warp takes one piece after another; neighbours take neighbouring pieces.
template <uint32_t kPieceBytes>
__global__ void __launch_bounds__(kThreads)
    GatherPieces(const uint8_t* const* sources, const __grid_constant__ Plan plan,
                 uint32_t pieces) {
  const uint32_t lane = threadIdx.x % kWarp;
  for (uint32_t piece = blockIdx.x * kWarpsPerBlock + threadIdx.x / kWarp; piece < pieces;
       piece += gridDim.x * kWarpsPerBlock) {
    uint32_t p = 0;
    while (piece >= plan.parts[p].pieces_end) ++p;
    const Part& part = plan.parts[p];
    const uint32_t within = piece - (p == 0 ? 0 : plan.parts[p - 1].pieces_end);
    const uint32_t source = within / part.pieces_each;
    const uint64_t at = uint64_t{within % part.pieces_each} * kPieceBytes;
    const uint8_t* const from = sources[part.what.first + source] + part.what.from + at;
    uint8_t* const to = part.what.to + source * part.what.to_stride + at;
    const uint64_t left = part.what.bytes - at;
    const uint32_t bytes = left < kPieceBytes ? static_cast<uint32_t>(left) : kPieceBytes;
    const uint64_t odd = reinterpret_cast<uint64_t>(from) | reinterpret_cast<uint64_t>(to) | bytes;
    if (odd % sizeof(uint4) == 0) {
      CopyPiece<uint4, kPieceBytes>(from, to, bytes, lane);
    } else if (odd % sizeof(uint2) == 0) {
      CopyPiece<uint2, kPieceBytes>(from, to, bytes, lane);
    } else {
      for (uint32_t i = lane; i < bytes; i += kWarp) to[i] = from[i];
    }
  }
}

template <uint32_t kPieceBytes>
absl::Status Launch(CUstream_st* stream, const uint8_t* const* sources,
                    std::span<const GpuGatherPart> parts, uint64_t blocks_max) {
  Plan plan{};
  uint64_t pieces = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    const uint64_t each = (parts[i].bytes + kPieceBytes - 1) / kPieceBytes;
    pieces += each * parts[i].count;
    plan.parts[i] = {parts[i], static_cast<uint32_t>(each), static_cast<uint32_t>(pieces)};
  }
  static_assert(kGatherBytesMax / kPieceBytes < INT32_MAX, "pieces are counted in 32 bits");
  const uint64_t blocks = std::min(blocks_max, (pieces + kWarpsPerBlock - 1) / kWarpsPerBlock);
  GatherPieces<kPieceBytes><<<static_cast<uint32_t>(blocks), kThreads, 0, stream>>>(
      sources, plan, static_cast<uint32_t>(pieces));
  return CudaStatus(cudaGetLastError(), "gathering parts");
}

}  // namespace

absl::Status LaunchGather(CUstream_st* stream, const uint8_t* const* sources,
                          std::span<const GpuGatherPart> parts, GatherFrom from) {
  return from == GatherFrom::kDevice ? Launch<kDevicePieceBytes>(stream, sources, parts, UINT32_MAX)
                                     : Launch<kHostPieceBytes>(stream, sources, parts, kHostBlocks);
}

}  // namespace cairn::store
