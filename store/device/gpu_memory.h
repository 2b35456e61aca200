// gpu_memory.h: a GPU as the store needs it: memory that other processes map, copies in order on
// streams, and marks that tell how far a stream is. Nothing here waits unless it says so.
//
// Addresses are the GPU's and may be read or written by work on streams only. Pinned host memory
// has the same addresses there as here. What a stream is given is done in the order given, beside
// what other streams do.
//
// Threads:   Gpu from any thread; a GpuStream from one at a time.
// Ownership: streams, regions and pins must be gone before their Gpu. What work on a stream
//            touches must outlive it.
// Units:     bytes.
// Errors:    UNAVAILABLE: no GPU here, or built without CUDA. RESOURCE_EXHAUSTED: no such memory.
//            INVALID_ARGUMENT: a handle that is not what it should be. INTERNAL: the driver's word
//            for anything else; a device that has said it of work on a stream is lost to the
//            process: everything after says it too.
#ifndef CAIRN_STORE_DEVICE_GPU_MEMORY_H_
#define CAIRN_STORE_DEVICE_GPU_MEMORY_H_

#include <array>
#include <cstdint>
#include <memory>
#include <span>

#include "store/base/status.h"
#include "store/device/file_descriptor.h"
#include "store/device/gpu_checksum.h"
#include "store/device/gpu_gather.h"

namespace cairn::store {

// How far a stream is: marks are numbered from 1.
using GpuMark = uint64_t;

class GpuStream {
 public:
  // Waits for what is on it.
  virtual ~GpuStream() = default;

  // Each puts work behind what is there and returns.
  virtual absl::Status Copy(const uint8_t* from, uint8_t* to, uint64_t bytes) = 0;
  virtual absl::Status Zero(uint8_t* at, uint64_t bytes) = 0;
  // `sources` is a table in a region, of `sources_count` addresses that `from` says the kind of.
  virtual absl::Status Gather(const uint8_t* const* sources, size_t sources_count,
                              std::span<const GpuGatherStep> steps, GatherFrom from,
                              const GatherProgress& progress) = 0;
  // The table and `out` may be in pinned host memory too; `out` takes as many as CheckChecksums
  // says.
  virtual absl::Status Checksums(const uint8_t* const* sources, size_t sources_count,
                                 std::span<const GpuChecksumPart> parts, uint64_t* out) = 0;
  // What follows waits on the device until the other stream has reached the mark.
  virtual absl::Status WaitFor(GpuStream& other, GpuMark mark) = 0;

  // The same until a gather that has begun has set the flag.
  virtual absl::Status WaitForFlag(const uint32_t* flag, uint32_t value) = 0;

  // Behind all that is there now.
  virtual absl::StatusOr<GpuMark> Mark() = 0;
  // The last mark reached, 0 before the first.
  virtual absl::StatusOr<GpuMark> Reached() = 0;
  // Waits here for it.
  virtual absl::Status Wait(GpuMark mark) = 0;
};

// How another process is told of a region. Either a descriptor, or, where the driver refuses to
// make one, a handle of its own.
struct GpuExport {
  FileDescriptor descriptor;
  std::array<uint8_t, 64> handle{};  // meant only without a descriptor
  uint64_t bytes = 0;
};

class GpuRegion {
 public:
  virtual ~GpuRegion() = default;
  virtual uint8_t* data() const = 0;
  virtual uint64_t bytes() const = 0;
  // FAILED_PRECONDITION: it is private, or imported.
  virtual absl::StatusOr<GpuExport> Export() const = 0;
};

enum class GpuSharing : uint8_t { kPrivate, kExportable };
enum class PinnedUse : uint8_t { kReadWrite, kReadOnly };  // by the GPU

class Gpu {
 public:
  virtual ~Gpu() = default;

  // At least so many bytes, aligned to 256, of unknown content.
  virtual absl::StatusOr<std::unique_ptr<GpuRegion>> Allocate(uint64_t bytes,
                                                              GpuSharing sharing) = 0;
  // Another process's region, for reading. By descriptor it cannot be written and stays whole when
  // its owner goes; by handle the driver cannot refuse writing.
  virtual absl::StatusOr<std::unique_ptr<GpuRegion>> Import(GpuExport exported) = 0;
  // Host memory stays where it is, and work on streams may use it, until what is returned goes.
  // Takes as long as its first touch if it was not touched yet.
  class Pinned {
   public:
    virtual ~Pinned() = default;
  };
  virtual absl::StatusOr<std::unique_ptr<Pinned>> Pin(std::span<const uint8_t> memory,
                                                      PinnedUse use) = 0;
  virtual absl::StatusOr<std::unique_ptr<GpuStream>> NewStream() = 0;
};

struct GpuOptions {
  bool export_by_descriptor = true;  // where the driver can; else by handle
};
// The first GPU of the machine, or UNAVAILABLE, saying why.
absl::StatusOr<std::unique_ptr<Gpu>> OpenGpu(const GpuOptions& options = {});

}  // namespace cairn::store

#endif  // CAIRN_STORE_DEVICE_GPU_MEMORY_H_
