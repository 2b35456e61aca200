// gpu_checksum.h: XXH3 of parts of many entries, made by the GPU where they lie: what proves that
// what is there is what was put, at the speed of the memory and without the bus.
//
// Threads:   any; each call puts one kernel on the stream and returns.
// Ownership: nothing is owned; sources, their table and `out` live until the kernel is done.
// Units:     bytes.
// Errors:    INVALID_ARGUMENT, naming the part, before any launch; INTERNAL: the driver's word.
#ifndef CAIRN_STORE_DEVICE_GPU_CHECKSUM_H_
#define CAIRN_STORE_DEVICE_GPU_CHECKSUM_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "store/base/status.h"

// As in CUDA's own headers, which those who only call this need not have.
struct CUstream_st;

namespace cairn::store {

inline constexpr size_t kChecksumPartsMax = 128;

// The bytes [from, from + bytes) of each of `count` sources.
struct GpuChecksumPart {
  uint32_t first = 0;  // of the sources
  uint32_t count = 0;
  uint32_t from = 0;  // in each of them
  uint32_t bytes = 0;
};

// INVALID_ARGUMENT unless every part lies within `sources` sources. Else how many checksums it is.
absl::StatusOr<size_t> CheckChecksums(std::span<const GpuChecksumPart> parts, size_t sources);

// `sources` is a table of addresses, `out` takes the checksums, part after part and within each
// source after source; both in GPU or pinned host memory. REQUIRES: CheckChecksums.
absl::Status LaunchChecksums(CUstream_st* stream, const uint8_t* const* sources,
                             std::span<const GpuChecksumPart> parts, uint64_t* out);

}  // namespace cairn::store

#endif  // CAIRN_STORE_DEVICE_GPU_CHECKSUM_H_
