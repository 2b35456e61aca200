// gpu_copy_out.h: EntryView::CopyOut by the GPU: entries copied into GPU memory of this process,
// from the daemon's pool or from mapped memory that is pinned, and checked there, where nobody else
// writes. So what is read from there is what was put, whatever becomes of the lease.
//
// Entries are added until there is no more room, then copied all at once:
//
//   for each entry: if (!copy->HasRoom(entry)) { copy->Copy(); use what is there; }
//                   where = copy->Add(entry);
//   copy->Copy(); use what is there;
//
// Threads:   one at a time.
// Ownership: the Gpu outlives this; what is added stays leased until Copy returns. What lies where
//            Add said stays until the next Copy begins: whoever reads it must be done by then.
// Units:     bytes.
// Errors:    DATA_LOSS: an entry is not what was put; else as store/device/gpu_memory.h.
#ifndef CAIRN_CACHE_CLIENT_GPU_COPY_OUT_H_
#define CAIRN_CACHE_CLIENT_GPU_COPY_OUT_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "cache/client/cache_api.h"
#include "store/device/gpu_memory.h"
#include "store/device/gpu_part_check.h"
#include "store/device/gpu_restore.h"

namespace cairn::cache {

class GpuCopyOut {
 public:
  static constexpr uint64_t kBytes = 64ull << 20;

  // Takes `bytes` of GPU memory, and little pinned memory.
  static absl::StatusOr<std::unique_ptr<GpuCopyOut>> Create(store::Gpu& gpu,
                                                            uint64_t bytes = kBytes);

  // Whether the GPU can read the entry where it lies, and the room is large enough for it at all.
  bool CanRead(const EntryView& entry) const;
  // Beside those added since the last Copy. REQUIRES: CanRead.
  bool HasRoom(const EntryView& entry) const;
  // Where its payload will lie, an address of the GPU's. REQUIRES: HasRoom.
  absl::StatusOr<uint8_t*> Add(const EntryView& entry);
  // Copies and checks all that were added, and waits. Whatever it returns, none are added then.
  absl::Status Copy();
  // Forgets what was added.
  void Drop();

 private:
  explicit GpuCopyOut(uint64_t bytes) : bytes_(bytes) {}
  store::GpuGatherStep Gathering() const;
  absl::Status CopyAndCheck();

  const uint64_t bytes_;
  std::unique_ptr<store::GpuRegion> room_;
  std::unique_ptr<store::GpuRestore> gather_;
  std::unique_ptr<store::GpuPartCheck> check_;
  std::unique_ptr<store::GpuStream> checks_;  // the stream of these
  // Of those added: where they lie, how long they are there, and what they should be in the room.
  std::vector<const uint8_t*> sources_;
  std::vector<uint64_t> lengths_;
  std::vector<store::GpuPartCheck::Subject> subjects_;
  bool from_host_ = false;  // any of them
  uint64_t used_ = 0;
};

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_CLIENT_GPU_COPY_OUT_H_
