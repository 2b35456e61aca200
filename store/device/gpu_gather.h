// gpu_gather.h: gathers parts of many entries into tables on the GPU, step by step, in one kernel:
// a layer of a prefix is a part of each block's rows and one of the checkpoint, and it is told when
// it is there while the kernel goes on with the next.
//
// One kernel and not one a layer: at a layer's 10 us the gaps between kernels would cost a third of
// the device's rate.
//
// Threads:   any; each call puts one kernel on the stream and returns.
// Ownership: nothing is owned; sources, their table, destinations and progress live until the
//            kernel is done.
// Units:     bytes.
// Errors:    INVALID_ARGUMENT, naming step and part and what is wrong, before any launch;
//            INTERNAL: the driver's word for what it refused.
#ifndef CAIRN_STORE_DEVICE_GPU_GATHER_H_
#define CAIRN_STORE_DEVICE_GPU_GATHER_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "store/base/limits.h"
#include "store/base/status.h"

// As in CUDA's own headers, which those who only call this need not have.
struct CUstream_st;

namespace cairn::store {

// In one call. Pro has 62 layers of up to three components each.
inline constexpr size_t kGatherPartsMax = 512;
// Beyond any prefix there is; pieces of it can be counted in 32 bits.
inline constexpr uint64_t kGatherBytesMax = 1ull << 40;
inline constexpr size_t kGatherSourcesMax = 2 * kBlocksPerPrefixMax;  // rows and checkpoints

// The bytes [from, from + bytes) of each of `count` sources, `to_stride` apart at the destination.
struct GpuGatherPart {
  uint32_t first = 0;  // of the sources
  uint32_t count = 0;
  uint32_t from = 0;  // in each of them
  uint32_t bytes = 0;
  uint8_t* to = nullptr;
  uint32_t to_stride = 0;
};

// What is to be there together: a layer's rows and its window.
struct GpuGatherStep {
  std::vector<GpuGatherPart> parts;
};

// How it is told what is there: flags[i] becomes `value` when step i is.
struct GatherProgress {
  uint32_t* counters = nullptr;  // in GPU memory, one a step, zero before and after
  uint32_t* flags = nullptr;     // in pinned host memory, one a step
  uint32_t value = 0;
};

// INVALID_ARGUMENT unless there are steps, none is empty, every part lies within `sources` sources
// and its pieces do not overlap.
absl::Status CheckGather(std::span<const GpuGatherStep> steps, size_t sources);

// Where the sources lie decides how many blocks it takes: few keep a bus to the host full, and the
// other multiprocessors go on computing.
enum class GatherFrom : uint8_t { kDevice, kHost };

// `sources` is a table in GPU memory of addresses that the GPU can read: its own or pinned host
// memory. Fastest where addresses and lengths are multiples of 16; any are right.
// REQUIRES: CheckGather.
absl::Status LaunchGather(CUstream_st* stream, const uint8_t* const* sources,
                          std::span<const GpuGatherStep> steps, GatherFrom from,
                          const GatherProgress& progress);

}  // namespace cairn::store

#endif  // CAIRN_STORE_DEVICE_GPU_GATHER_H_
