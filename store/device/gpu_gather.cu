// From the GPU's memory a warp keeps several pieces on their way into a ring of its own in shared
// memory and stores the oldest when it is there; a lane stores what it fetched itself, so lanes need
// not wait for each other. From the host's memory pieces go through registers, which keeps the bus
// a sixth fuller than the ring does. What a step brought is told by one thread a block, so that no
// warp waits for its stores.
#include <cuda_runtime_api.h>

#include <algorithm>

#include "store/device/cuda_status.h"
#include "store/device/gpu_gather.h"

namespace cairn::store {
namespace {

constexpr uint32_t kWarp = 32;
constexpr uint32_t kCopyWarps = 8;
constexpr uint32_t kThreads = (kCopyWarps + 1) * kWarp;  // and the one that tells
constexpr uint32_t kStages = 6;
constexpr uint32_t kPieceBytes = 2336;  // four rows of 584 B: most parts are whole pieces
constexpr uint32_t kBlocksPerProcessor = 2;
constexpr uint32_t kHostBlocks = 64;  // keep the bus full
static_assert(kPieceBytes % sizeof(uint4) == 0);
static_assert(kGatherBytesMax / kPieceBytes + kGatherPartsMax * kGatherSourcesMax < INT32_MAX,
              "pieces are counted in 32 bits");

// Flash has so few, and what a launch is given by value costs time.
constexpr size_t kFewParts = 128;

struct Part {
  uint8_t* to;
  uint32_t to_stride, from, bytes, first;
  uint32_t pieces_end;  // of this part and all before it
  uint32_t step;
};

// By value, so that it lies in the constant cache.
template <size_t kParts>
struct Plan {
  Part parts[kParts];
  uint32_t pieces, steps;
};

struct Piece {
  const uint8_t* from;
  uint8_t* to;
  uint32_t bytes, step;

  // The largest that addresses and length are multiples of.
  __device__ uint32_t word() const {
    const uint64_t odd = reinterpret_cast<uint64_t>(from) | reinterpret_cast<uint64_t>(to) | bytes;
    return odd % sizeof(uint4) == 0 ? sizeof(uint4) : odd % sizeof(uint2) == 0 ? sizeof(uint2) : 1;
  }
};

struct Rings {
  alignas(16) uint8_t bytes[kCopyWarps][kStages][kPieceBytes];
  Piece pieces[kCopyWarps][kStages];
};

// Calls for the places in a piece that are this lane's.
template <typename Word, typename Each>
__device__ void EachWord(uint32_t bytes, uint32_t lane, Each each) {
#pragma unroll
  for (uint32_t at = lane * sizeof(Word); at < kPieceBytes; at += kWarp * sizeof(Word)) {
    if (at < bytes) each(at);
  }
}

__device__ void Fetch(const Piece& piece, uint8_t* ring, uint32_t lane) {
  const auto to = static_cast<uint32_t>(__cvta_generic_to_shared(ring));
  const uint32_t word = piece.word();
  if (word == sizeof(uint4)) {
    EachWord<uint4>(piece.bytes, lane, [&](uint32_t at) {
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to + at), "l"(piece.from + at)
                   : "memory");
    });
  } else if (word == sizeof(uint2)) {
    EachWord<uint2>(piece.bytes, lane, [&](uint32_t at) {
      asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(to + at), "l"(piece.from + at)
                   : "memory");
    });
  }
}

__device__ void CopyBytes(const Piece& piece, uint32_t lane) {
  for (uint32_t at = lane; at < piece.bytes; at += kWarp) piece.to[at] = piece.from[at];
}

__device__ void Store(const Piece& piece, const uint8_t* ring, uint32_t lane) {
  const uint32_t word = piece.word();
  if (word == sizeof(uint4)) {
    EachWord<uint4>(piece.bytes, lane, [&](uint32_t at) {
      *reinterpret_cast<uint4*>(piece.to + at) = *reinterpret_cast<const uint4*>(ring + at);
    });
  } else if (word == sizeof(uint2)) {
    EachWord<uint2>(piece.bytes, lane, [&](uint32_t at) {
      *reinterpret_cast<uint2*>(piece.to + at) = *reinterpret_cast<const uint2*>(ring + at);
    });
  } else {
    CopyBytes(piece, lane);
  }
}

// All loads before the first store: they are on their way together.
template <typename Word>
__device__ void CopyWords(const Piece& piece, uint32_t lane) {
  constexpr uint32_t kRound = kWarp * sizeof(Word);
  constexpr uint32_t kLoads = (kPieceBytes + kRound - 1) / kRound;
  Word held[kLoads];
#pragma unroll
  for (uint32_t i = 0; i < kLoads; ++i) {
    const uint32_t at = i * kRound + lane * sizeof(Word);
    if (at < piece.bytes) held[i] = __ldcs(reinterpret_cast<const Word*>(piece.from + at));
  }
#pragma unroll
  for (uint32_t i = 0; i < kLoads; ++i) {
    const uint32_t at = i * kRound + lane * sizeof(Word);
    if (at < piece.bytes) *reinterpret_cast<Word*>(piece.to + at) = held[i];
  }
}

// Finds pieces by their ascending numbers.
template <size_t kParts>
class Finder {
 public:
  __device__ Finder(const Plan<kParts>& plan, const uint8_t* const* sources)
      : plan_(plan), sources_(sources) {}
  __device__ Piece operator()(uint32_t number) {
    while (number >= plan_.parts[part_].pieces_end) begin_ = plan_.parts[part_++].pieces_end;
    const Part& part = plan_.parts[part_];
    const uint32_t each = (part.bytes + kPieceBytes - 1) / kPieceBytes;
    const uint32_t source = (number - begin_) / each;
    const uint32_t at = (number - begin_) % each * kPieceBytes;
    return {sources_[part.first + source] + part.from + at,
            part.to + uint64_t{source} * part.to_stride + at, min(part.bytes - at, kPieceBytes),
            part.step};
  }

 private:
  const Plan<kParts>& plan_;
  const uint8_t* const* const sources_;
  uint32_t part_ = 0, begin_ = 0;
};

// The warp has stored all before this step.
__device__ void Pass(volatile uint32_t& passed, uint32_t step, uint32_t lane) {
  __syncwarp();
  if (lane != 0) return;
  __threadfence_block();
  passed = step;
}

// Warps take pieces in turn, all through the steps in their order; neighbours take neighbours.
template <size_t kParts>
__device__ void CopyThroughRing(const uint8_t* const* sources, const Plan<kParts>& plan,
                                Rings& rings, uint32_t* passed, uint32_t warp, uint32_t lane) {
  Finder<kParts> find(plan, sources);
  const uint32_t first = blockIdx.x * kCopyWarps + warp, stride = gridDim.x * kCopyWarps;
  const uint32_t count = first < plan.pieces ? (plan.pieces - first - 1) / stride + 1 : 0;
  const auto fetch = [&](uint32_t i) {
    if (i < count) {
      const Piece piece = find(first + i * stride);
      if (lane == 0) rings.pieces[warp][i % kStages] = piece;
      Fetch(piece, rings.bytes[warp][i % kStages], lane);
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
  };
  for (uint32_t i = 0; i + 1 < kStages; ++i) fetch(i);
  uint32_t step = 0;
  for (uint32_t i = 0; i < count; ++i) {
    fetch(i + kStages - 1);
    asm volatile("cp.async.wait_group %0;" ::"n"(kStages - 1) : "memory");
    __syncwarp();
    const Piece piece = rings.pieces[warp][i % kStages];
    if (piece.step != step) {
      step = piece.step;
      Pass(passed[warp], step, lane);
    }
    Store(piece, rings.bytes[warp][i % kStages], lane);
    __syncwarp();
  }
  Pass(passed[warp], plan.steps, lane);
}

template <size_t kParts>
__device__ void CopyThroughRegisters(const uint8_t* const* sources, const Plan<kParts>& plan,
                                     uint32_t* passed, uint32_t warp, uint32_t lane) {
  Finder<kParts> find(plan, sources);
  uint32_t step = 0;
  for (uint32_t number = blockIdx.x * kCopyWarps + warp; number < plan.pieces;
       number += gridDim.x * kCopyWarps) {
    const Piece piece = find(number);
    if (piece.step != step) {
      step = piece.step;
      Pass(passed[warp], step, lane);
    }
    const uint32_t word = piece.word();
    if (word == sizeof(uint4)) {
      CopyWords<uint4>(piece, lane);
    } else if (word == sizeof(uint2)) {
      CopyWords<uint2>(piece, lane);
    } else {
      CopyBytes(piece, lane);
    }
  }
  Pass(passed[warp], plan.steps, lane);
}

// The block has brought all it had of a step; who says so last tells that the step is there.
// `all_passed`: by warp, it has stored all pieces of the steps before this one.
__device__ void Tell(const uint32_t* all_passed, uint32_t steps, const GatherProgress& progress) {
  for (uint32_t step = 0; step < steps; ++step) {
    for (uint32_t warp = 0; warp < kCopyWarps; ++warp) {
      const volatile uint32_t& passed = all_passed[warp];
      while (passed <= step) __nanosleep(100);
    }
    __threadfence();
    if (atomicAdd(&progress.counters[step], 1) + 1 < gridDim.x) continue;
    progress.counters[step] = 0;
    __threadfence_system();
    *const_cast<volatile uint32_t*>(&progress.flags[step]) = progress.value;
  }
}

template <size_t kParts, GatherFrom kFrom>
__global__ void __launch_bounds__(kThreads, kBlocksPerProcessor)
    GatherPieces(const uint8_t* const* sources, const __grid_constant__ Plan<kParts> plan,
                 const __grid_constant__ GatherProgress progress) {
  extern __shared__ Rings rings[];
  __shared__ uint32_t passed[kCopyWarps];
  const uint32_t warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  if (threadIdx.x < kCopyWarps) passed[threadIdx.x] = 0;
  __syncthreads();
  if (warp == kCopyWarps) {
    if (lane == 0) Tell(passed, plan.steps, progress);
  } else if constexpr (kFrom == GatherFrom::kDevice) {
    CopyThroughRing(sources, plan, *rings, passed, warp, lane);
  } else {
    CopyThroughRegisters(sources, plan, passed, warp, lane);
  }
}

template <typename Kernel>
cudaError_t AllowSharedMemory(Kernel* kernel) {
  const cudaError_t error = cudaFuncSetAttribute(
      kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(sizeof(Rings)));
  if (error != cudaSuccess) return error;
  return cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                              cudaSharedmemCarveoutMaxShared);
}

template <size_t kParts, GatherFrom kFrom>
absl::Status Launch(CUstream_st* stream, const uint8_t* const* sources,
                    std::span<const GpuGatherStep> steps, uint32_t blocks_max,
                    const GatherProgress& progress) {
  constexpr size_t kSharedBytes = kFrom == GatherFrom::kDevice ? sizeof(Rings) : 0;
  if (kSharedBytes != 0) {
    static const cudaError_t allowed = AllowSharedMemory(GatherPieces<kParts, kFrom>);
    CAIRN_RETURN_IF_ERROR(CudaStatus(allowed, "shared memory for gathering"));
  }
  Plan<kParts> plan{};
  size_t p = 0;
  for (uint32_t step = 0; step < steps.size(); ++step) {
    for (const GpuGatherPart& part : steps[step].parts) {
      plan.pieces += part.count * ((part.bytes - 1) / kPieceBytes + 1);
      plan.parts[p++] = {part.to,    part.to_stride, part.from, part.bytes,
                         part.first, plan.pieces,    step};
    }
  }
  plan.steps = static_cast<uint32_t>(steps.size());
  const uint32_t blocks = std::min(blocks_max, (plan.pieces + kCopyWarps - 1) / kCopyWarps);
  GatherPieces<kParts, kFrom><<<blocks, kThreads, kSharedBytes, stream>>>(sources, plan, progress);
  return CudaStatus(cudaGetLastError(), "gathering parts");
}

}  // namespace

absl::Status LaunchGather(CUstream_st* stream, const uint8_t* const* sources,
                          std::span<const GpuGatherStep> steps, GatherFrom from,
                          const GatherProgress& progress) {
  size_t parts = 0;
  for (const GpuGatherStep& step : steps) parts += step.parts.size();
  const bool few = parts <= kFewParts;
  if (from == GatherFrom::kHost) {
    const auto launch = few ? Launch<kFewParts, GatherFrom::kHost>
                            : Launch<kGatherPartsMax, GatherFrom::kHost>;
    return launch(stream, sources, steps, kHostBlocks, progress);
  }
  int processors = 0;
  CAIRN_RETURN_IF_ERROR(CudaStatus(
      cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, 0), "the GPU"));
  const auto launch = few ? Launch<kFewParts, GatherFrom::kDevice>
                          : Launch<kGatherPartsMax, GatherFrom::kDevice>;
  return launch(stream, sources, steps, kBlocksPerProcessor * static_cast<uint32_t>(processors),
                progress);
}

}  // namespace cairn::store
