// gpu_part_check.h: whether entries in GPU memory are what they should be, found out by the GPU: it
// makes the checksums where the bytes lie, and 8 B a part come back.
//
// Threads:   one at a time.
// Ownership: what is checked must stay until the stream has reached the mark behind Begin, and this
//            too.
// Units:     bytes.
// Errors:    as store/device/gpu_memory.h; DATA_LOSS from Verdict, naming the part.
#ifndef CAIRN_STORE_DEVICE_GPU_PART_CHECK_H_
#define CAIRN_STORE_DEVICE_GPU_PART_CHECK_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "store/base/entry.h"
#include "store/base/status.h"
#include "store/device/file_system.h"
#include "store/device/gpu_memory.h"

namespace cairn::store {

class GpuPartCheck {
 public:
  // An entry as it lies on the GPU: payload, and the part table behind it.
  struct Subject {
    const uint8_t* at = nullptr;
    std::vector<EntryPart> parts;
    uint64_t table_xxh3 = 0;
  };
  // For up to `entries_max` at a time. Takes pinned memory for their checksums.
  static absl::StatusOr<std::unique_ptr<GpuPartCheck>> Create(Gpu& gpu, size_t entries_max);

  // Puts the work on the stream. Those with equal parts are cheap when they stand together.
  absl::Status Begin(GpuStream& stream, std::vector<Subject> subjects);
  // Of the i-th subject, once the stream has passed: OK, or DATA_LOSS.
  absl::Status Verdict(size_t i) const;

 private:
  // Sums of a run of subjects with equal parts: part after part, of each in turn.
  struct Run {
    size_t begin = 0, count = 0;  // subjects
    size_t sums = 0;              // where they begin
  };
  explicit GpuPartCheck(size_t entries_max) : entries_max_(entries_max) {}
  absl::Status BeginRun(GpuStream& stream, const Run& run);
  const uint8_t** sources() { return reinterpret_cast<const uint8_t**>(memory_.bytes().data()); }
  uint64_t* sums() const;

  const size_t entries_max_;
  mutable IoBuffer memory_;  // a table of addresses, then the sums; written by the GPU
  std::unique_ptr<Gpu::Pinned> pinned_;
  std::vector<Subject> subjects_;
  std::vector<Run> runs_;
};

}  // namespace cairn::store

#endif  // CAIRN_STORE_DEVICE_GPU_PART_CHECK_H_
