#include <cuda_runtime_api.h>

#include <algorithm>
#include <memory>

#include "store/device/cuda_status.h"
#include "store/device/gpu_gather.h"

namespace cairn::store {
namespace {

constexpr uint32_t kWarp = 32;
constexpr uint32_t kThreads = 256;
constexpr uint32_t kWarpsPerBlock = kThreads / kWarp;
// What a warp has on its way at once.
constexpr uint32_t kPieceBytes = 4096;
constexpr uint32_t kBlocksPerProcessor = 2;  // from the GPU
constexpr uint32_t kHostBlocks = 32;
static_assert(kGatherBytesMax / kPieceBytes + kGatherPartsMax * kGatherSourcesMax < INT32_MAX,
              "pieces are counted in 32 bits");

struct Part {
  uint8_t* to;
  uint32_t to_stride, from, bytes, first;
  uint32_t pieces_end;  // of this part and all before it
  uint32_t step;
  uint32_t step_pieces;  // of its whole step
};

// By value, so that it lies in the constant cache; two sizes, as its size costs at each launch.
template <size_t kParts>
struct Plan {
  Part parts[kParts];
};

// What a warp has brought of a step and not yet told. Telling waits until the stores have been
// performed; so it is begun when the next piece's loads are on their way, and ended behind that
// piece's stores. Only lane 0 tells.
struct Arrival {
  const Part* part = nullptr;  // of the step
  uint32_t pieces = 0;         // 0: nothing to tell
  uint32_t before = 0;         // what others had brought

  __device__ void Begin(const GatherProgress& progress, uint32_t lane) {
    if (pieces == 0) return;
    __syncwarp();
    if (lane != 0) return;
    __threadfence();
    before = atomicAdd(&progress.counters[part->step], pieces);
  }
  // Who brought the last ones says that the step is there.
  __device__ void End(const GatherProgress& progress, uint32_t lane) {
    if (lane == 0 && pieces != 0 && before + pieces == part->step_pieces) {
      progress.counters[part->step] = 0;
      __threadfence_system();
      *const_cast<volatile uint32_t*>(&progress.flags[part->step]) = progress.value;
    }
    pieces = 0;
  }
};

// All loads before the first store: they are on their way together. `between` is called in between.
template <typename Word, typename Between>
__device__ void CopyPiece(const uint8_t* from, uint8_t* to, uint32_t bytes, uint32_t lane,
                          Between between) {
  constexpr uint32_t kLoads = kPieceBytes / (kWarp * sizeof(Word));
  const auto* const source = reinterpret_cast<const Word*>(from);
  auto* const destination = reinterpret_cast<Word*>(to);
  const uint32_t words = bytes / sizeof(Word);
  Word held[kLoads];
#pragma unroll
  for (uint32_t i = 0; i < kLoads; ++i) {
    if (const uint32_t at = i * kWarp + lane; at < words) held[i] = __ldcs(source + at);
  }
  between();
#pragma unroll
  for (uint32_t i = 0; i < kLoads; ++i) {
    if (const uint32_t at = i * kWarp + lane; at < words) destination[at] = held[i];
  }
}

template <typename Between>
__device__ void CopyAny(const uint8_t* from, uint8_t* to, uint32_t bytes, uint32_t lane,
                        Between between) {
  const uint64_t odd = reinterpret_cast<uint64_t>(from) | reinterpret_cast<uint64_t>(to) | bytes;
  if (odd % sizeof(uint4) == 0) {
    CopyPiece<uint4>(from, to, bytes, lane, between);
  } else if (odd % sizeof(uint2) == 0) {
    CopyPiece<uint2>(from, to, bytes, lane, between);
  } else {
    between();
    for (uint32_t i = lane; i < bytes; i += kWarp) to[i] = from[i];
  }
}

// Warps take pieces in turn, all through the steps in their order; neighbours take neighbours.
template <size_t kParts>
__global__ void __launch_bounds__(kThreads, kBlocksPerProcessor)
    GatherPieces(const uint8_t* const* sources, const __grid_constant__ Plan<kParts> plan,
                 uint32_t pieces, const __grid_constant__ GatherProgress progress) {
  const uint32_t lane = threadIdx.x % kWarp;
  uint32_t p = 0, begin = 0, brought = 0;
  Arrival arrival;
  for (uint32_t piece = blockIdx.x * kWarpsPerBlock + threadIdx.x / kWarp; piece < pieces;
       piece += gridDim.x * kWarpsPerBlock) {
    while (piece >= plan.parts[p].pieces_end) {
      begin = plan.parts[p].pieces_end;
      if (brought != 0 && plan.parts[p + 1].step != plan.parts[p].step) {
        arrival = {&plan.parts[p], brought};
        brought = 0;
      }
      ++p;
    }
    const Part& part = plan.parts[p];
    const uint32_t each = (part.bytes + kPieceBytes - 1) / kPieceBytes;
    const uint32_t source = (piece - begin) / each;
    const uint32_t at = (piece - begin) % each * kPieceBytes;
    CopyAny(sources[part.first + source] + part.from + at,
            part.to + uint64_t{source} * part.to_stride + at, min(part.bytes - at, kPieceBytes),
            lane, [&] { arrival.Begin(progress, lane); });
    arrival.End(progress, lane);
    ++brought;
  }
  arrival = {&plan.parts[p], brought};
  arrival.Begin(progress, lane);
  arrival.End(progress, lane);
}

template <size_t kParts>
absl::Status Launch(CUstream_st* stream, const uint8_t* const* sources,
                    std::span<const GpuGatherStep> steps, uint32_t blocks_max,
                    const GatherProgress& progress) {
  Plan<kParts> plan{};
  size_t p = 0;
  uint32_t pieces = 0;
  for (uint32_t step = 0; step < steps.size(); ++step) {
    const size_t first = p;
    const uint32_t before = pieces;
    for (const GpuGatherPart& part : steps[step].parts) {
      pieces += part.count * ((part.bytes - 1) / kPieceBytes + 1);
      plan.parts[p++] = {part.to,    part.to_stride, part.from, part.bytes,
                         part.first, pieces,         step,      0};
    }
    for (size_t i = first; i < p; ++i) plan.parts[i].step_pieces = pieces - before;
  }
  const uint32_t blocks = std::min(blocks_max, (pieces + kWarpsPerBlock - 1) / kWarpsPerBlock);
  GatherPieces<kParts><<<blocks, kThreads, 0, stream>>>(sources, plan, pieces, progress);
  return CudaStatus(cudaGetLastError(), "gathering parts");
}

}  // namespace

absl::Status LaunchGather(CUstream_st* stream, const uint8_t* const* sources,
                          std::span<const GpuGatherStep> steps, GatherFrom from,
                          const GatherProgress& progress) {
  uint32_t blocks = kHostBlocks;
  if (from == GatherFrom::kDevice) {
    int processors = 0;
    CAIRN_RETURN_IF_ERROR(CudaStatus(
        cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, 0), "the GPU"));
    blocks = kBlocksPerProcessor * static_cast<uint32_t>(processors);
  }
  size_t parts = 0;
  for (const GpuGatherStep& step : steps) parts += step.parts.size();
  return parts <= 128 ? Launch<128>(stream, sources, steps, blocks, progress)
                      : Launch<kGatherPartsMax>(stream, sources, steps, blocks, progress);
}

}  // namespace cairn::store
