// gpu_restore.h: a prefix on its way from where it is stored into the memory of a session, layer by
// layer: the first can be computed with before the last is there.
//
// A restore takes parts of many entries, which lie in a region of the GPU's (an imported pool) or
// in pinned host memory (the arena), in steps. What a step brings is there when the step is done;
// steps begin in order and may end in another.
//
// Threads:   one at a time.
// Ownership: sources, destinations and the Gpu must outlive the work: until Wait or the destructor.
// Units:     bytes.
// Errors:    INVALID_ARGUMENT, naming step and part, before anything is begun;
//            FAILED_PRECONDITION: the one before is not done; else as gpu_memory.h.
#ifndef CAIRN_STORE_DEVICE_GPU_RESTORE_H_
#define CAIRN_STORE_DEVICE_GPU_RESTORE_H_

#include <cstdint>
#include <memory>
#include <span>

#include "store/base/status.h"
#include "store/device/file_system.h"
#include "store/device/gpu_memory.h"

namespace cairn::store {

class GpuRestore {
 public:
  // For up to `sources_max` entries at a time. Takes GPU memory for their table.
  static absl::StatusOr<std::unique_ptr<GpuRestore>> Create(Gpu& gpu, size_t sources_max);
  ~GpuRestore();  // waits

  // Begins all steps and returns. REQUIRES: nothing else uses the destinations meanwhile.
  absl::Status Begin(std::span<const uint8_t* const> sources, std::span<const GpuGatherStep> steps,
                     GatherFrom from);
  // Whether the step's bytes are there; does not wait. REQUIRES: it was begun.
  absl::StatusOr<bool> Done(size_t step);
  // What follows on the stream waits for the step, on the device. REQUIRES: it was begun.
  absl::Status Before(GpuStream& stream, size_t step);
  // Waits here until all steps are done.
  absl::Status Wait();

 private:
  GpuRestore(Gpu& gpu, size_t sources_max) : gpu_(gpu), sources_max_(sources_max) {}
  absl::Status Open();
  uint32_t* flags() { return reinterpret_cast<uint32_t*>(staged_.bytes().data()); }

  Gpu& gpu_;
  const size_t sources_max_;
  // Pinned: the steps' flags, then the table of sources on its way up.
  IoBuffer staged_;
  std::unique_ptr<Gpu::Pinned> pinned_;
  std::unique_ptr<GpuRegion> there_;  // the steps' counters, then the table
  std::unique_ptr<GpuStream> stream_;
  size_t steps_ = 0;    // of the one begun last
  uint32_t value_ = 0;  // of its flags
  GpuMark mark_ = 0;    // behind it
};

}  // namespace cairn::store

#endif  // CAIRN_STORE_DEVICE_GPU_RESTORE_H_
