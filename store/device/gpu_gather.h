// gpu_gather.h: gathers parts of many entries into tables on the GPU, one kernel for all that a
// layer needs: a layer of a prefix is one part of each block's rows and one of the checkpoint.
//
// Threads:   any; each call puts one kernel on the stream and returns.
// Ownership: nothing is owned; sources, their table and destinations live until the kernel is done.
// Units:     bytes.
// Errors:    INVALID_ARGUMENT, naming the part and what is wrong with it, before any launch;
//            INTERNAL: the driver's word for what it refused.
#ifndef CAIRN_STORE_DEVICE_GPU_GATHER_H_
#define CAIRN_STORE_DEVICE_GPU_GATHER_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "store/base/status.h"

// As in CUDA's own headers, which those who only call this need not have.
struct CUstream_st;

namespace cairn::store {

inline constexpr size_t kGatherPartsMax = 16;
// By one call: beyond any prefix there is, and pieces of it can be counted in 32 bits.
inline constexpr uint64_t kGatherBytesMax = 1ull << 40;

// The bytes [from, from + bytes) of each of `count` sources, `to_stride` apart at the destination.
struct GpuGatherPart {
  uint32_t first = 0;  // of the sources
  uint32_t count = 0;
  uint64_t from = 0;  // in each of them
  uint64_t bytes = 0;
  uint8_t* to = nullptr;
  uint64_t to_stride = 0;
};

// INVALID_ARGUMENT unless every part lies within `sources` sources and its pieces do not overlap.
absl::Status CheckGather(std::span<const GpuGatherPart> parts, size_t sources);

// Where the sources lie decides how many blocks it takes: few keep a bus to the host full, and the
// other multiprocessors go on computing.
enum class GatherFrom : uint8_t { kDevice, kHost };

// `sources` is a table in GPU memory of addresses that the GPU can read: its own or pinned host
// memory. Fastest where addresses and lengths are multiples of 16; any are right.
// REQUIRES: CheckGather.
absl::Status LaunchGather(CUstream_st* stream, const uint8_t* const* sources,
                          std::span<const GpuGatherPart> parts, GatherFrom from);

}  // namespace cairn::store

#endif  // CAIRN_STORE_DEVICE_GPU_GATHER_H_
