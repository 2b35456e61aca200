// cuda_cached_session.h: a slot of CudaSessions as the cache sees it. Entries go through memory of
// this process, of bounded size, however many there are:
//
// In:  those that the device can read where they lie (the daemon's pool, or its arena once that is
//      pinned) are copied and checked by it (cache/client/gpu_copy_out.h); others are copied into
//      pinned memory and checked in the same pass. From there the device gathers. So the slot gets
//      no byte that was not checked, and a lease that is lost afterwards costs nothing. What turns
//      out to be damaged where the device read it is taken from host memory by the other way.
// Out: gathered into pinned memory by the device and, when it has finished, copied for the put
//      queue: as many blocks at once as there is room for.
//
// Both wait for all that is on the stream. There is no replay on the GPU: a prefix needs its
// checkpoint.
//
// Threads:   one at a time. With a stream of its own it is restored on another thread than the one
//            that steps, which touches other slots meanwhile; steps that wrote to this slot have
//            been waited for, and nothing else is.
// Ownership: what the constructor is given outlives this.
// Units:     bytes, tokens.
// Errors:    RESOURCE_EXHAUSTED: no pinned memory, which is taken when it is first needed.
//            FAILED_PRECONDITION: there is no checkpoint. OUT_OF_RANGE: the prefix is longer than
//            the slot. Else what the device says.
#ifndef CAIRN_ENGINE_CUDA_CUDA_CACHED_SESSION_H_
#define CAIRN_ENGINE_CUDA_CUDA_CACHED_SESSION_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "cache/client/gpu_copy_out.h"
#include "engine/cuda/cuda_sessions.h"
#include "engine/cuda/cuda_transfer.h"
#include "engine/state/cached_session.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/pinned_buffer.h"

namespace cairn::engine {

class CudaCachedSession final : public CachedSession {
 public:
  static constexpr int64_t kStagingBytes = 64 << 20;

  // `layout`: CudaKvLayout of the sessions' model. `gpu`: by which the device reads entries where
  // they lie; null: all go through pinned memory. `staging_bytes`: of pinned memory, and with `gpu`
  // of the GPU's too; as much as the largest entry takes if that is more.
  CudaCachedSession(const KvLayout& layout, CudaSessions& sessions, int64_t slot,
                    kernels::cuda::Stream stream, store::Gpu* gpu,
                    int64_t staging_bytes = kStagingBytes);

  // Takes the memory that entries go through, else taken by the first of them: to take memory may
  // wait for all that the device does.
  absl::Status Prepare();
  int64_t slot() const { return slot_; }
  // The slot is empty, whatever it held.
  void Clear();

  int64_t position() const override { return sessions_.position(slot_); }
  absl::Status Restore(const StoredPrefix& prefix) override;
  RestoreFigures restored() const override { return restored_; }
  absl::StatusOr<std::shared_ptr<const uint8_t>> ShareRows(int64_t block) override;
  absl::StatusOr<std::shared_ptr<const uint8_t>> ShareCheckpoint() override;

 private:
  using Copies = std::vector<kernels::cuda::SegmentCopy>;
  // On their way into the slot: copies of entries, and how much of the staging memory these take.
  struct Arriving {
    bool device_may = false;  // read entries where they lie
    bool device_did = false;
    Copies copies = {};
    int64_t staged = 0;
  };

  absl::StatusOr<std::span<uint8_t>> Staging();
  // Copies between an entry and the slot, of all layers.
  void AddRows(int64_t block, TransferDirection direction, uint8_t* entry, Copies& copies) const;
  void AddCheckpoint(int64_t blocks, TransferDirection direction, uint8_t* entry,
                     Copies& copies) const;
  // Does them, and waits; `copies` is empty then.
  absl::Status Gather(Copies& copies);
  // Room on the device for as many as there are at once.
  absl::Status ReserveCopies();

  absl::Status Check(const StoredPrefix& prefix) const;
  absl::Status RestoreAll(const StoredPrefix& prefix, Arriving& arriving);
  // Where the entry's checked copy will lie at the next Arrive.
  absl::StatusOr<uint8_t*> TakeIn(const cache::EntryView& entry, Arriving& arriving);
  absl::Status OpenCopyOut();
  absl::StatusOr<bool> DeviceReads(const cache::EntryView& entry);
  // All that was taken in goes to the slot.
  absl::Status Arrive(Arriving& arriving);

  const KvLayout& layout_;
  CudaSessions& sessions_;
  const int64_t slot_;
  const kernels::cuda::Stream stream_;
  store::Gpu* const gpu_;
  const int64_t largest_entry_;
  const int64_t staging_bytes_;
  kernels::cuda::PinnedBuffer staging_;
  kernels::cuda::DeviceBuffer<kernels::cuda::SegmentCopy> on_device_;
  std::unique_ptr<cache::GpuCopyOut> copy_out_;
  RestoreFigures restored_;
  // Rows entries in the staging memory, one behind the other.
  int64_t staged_block_ = 0, staged_blocks_ = 0;
};

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_CUDA_CUDA_CACHED_SESSION_H_
