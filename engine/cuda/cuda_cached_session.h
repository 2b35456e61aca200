// cuda_cached_session.h: a slot of CudaSessions as the cache sees it. Entries go through pinned
// memory of this process, of bounded size, however many there are:
//
// In:  copied there and checked in the same pass, then gathered from there by the device. So the
//      slot gets no byte that was not checked, and a lease that is lost afterwards costs nothing.
// Out: gathered there by the device and, when it has finished, copied for the put queue.
//
// Both wait for all that is on the stream. There is no replay on the GPU: a prefix needs its
// checkpoint.
//
// Threads:   that of the CudaForward whose stream this is. Ownership: what the constructor is given
//            outlives this.
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

#include "engine/cuda/cuda_sessions.h"
#include "engine/cuda/cuda_transfer.h"
#include "engine/state/cached_session.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/pinned_buffer.h"

namespace cairn::engine {

class CudaCachedSession final : public CachedSession {
 public:
  // Of pinned memory; as much as the largest entry takes if that is more.
  static constexpr int64_t kStagingBytes = 64 << 20;

  // `layout`: CudaKvLayout of the sessions' model.
  CudaCachedSession(const KvLayout& layout, CudaSessions& sessions, int64_t slot,
                    kernels::cuda::Stream stream, int64_t staging_bytes = kStagingBytes);

  // The slot is empty, whatever it held.
  void Clear() { sessions_.set_position(slot_, 0); }

  int64_t position() const override { return sessions_.position(slot_); }
  absl::Status Restore(const StoredPrefix& prefix) override;
  absl::StatusOr<std::shared_ptr<const uint8_t>> ShareRows(int64_t block) override;
  absl::StatusOr<std::shared_ptr<const uint8_t>> ShareCheckpoint() override;

 private:
  using Copies = std::vector<kernels::cuda::SegmentCopy>;

  absl::StatusOr<std::span<uint8_t>> Staging();
  // Copies between an entry and the slot, of all layers.
  void AddRows(int64_t block, TransferDirection direction, uint8_t* entry, Copies& copies) const;
  void AddCheckpoint(int64_t blocks, TransferDirection direction, uint8_t* entry,
                     Copies& copies) const;
  // Does them, and waits; `copies` is empty then.
  absl::Status Gather(Copies& copies);
  // The same, of copies to all of `entry`, which is staging memory, and what they brought there.
  absl::StatusOr<std::shared_ptr<const uint8_t>> TakeOut(Copies copies,
                                                         std::span<const uint8_t> entry);

  const KvLayout& layout_;
  CudaSessions& sessions_;
  const int64_t slot_;
  const kernels::cuda::Stream stream_;
  const int64_t staging_bytes_;
  kernels::cuda::PinnedBuffer staging_;
  kernels::cuda::DeviceBuffer<kernels::cuda::SegmentCopy> on_device_;
};

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_CUDA_CUDA_CACHED_SESSION_H_
