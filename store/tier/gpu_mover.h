// gpu_mover.h: copies entries between pinned host memory and the GPU tier, many on their way at a
// time, and publishes each when it has arrived.
//
// An entry is verified where it has arrived, one going up by the GPU and one coming down by the
// caller of Step; what does not match is not published. A move that fails or is cancelled leaves
// both tiers as they were: the copy it came from stays, the room it was going to returns once
// nothing writes there any more. Erasing what it came from is the caller's.
//
// Threads:   Promote, Demote, Cancel and stats from any thread; they never wait for the device.
//            Step and Wait from one at a time, the mover's. `done` is called by Step, with no lock
//            held, and may call back.
// Ownership: a move holds its pin until it is done. Tiers and Gpu must outlive the mover.
// Units:     bytes.
// Errors:    to `done`: ALREADY_EXISTS, it is there; RESOURCE_EXHAUSTED, no room: evict and ask
//            again; DATA_LOSS, the copy it came from is damaged, naming the part; ABORTED,
//            cancelled; else the device's (gpu_memory.h), which is lost.
#ifndef CAIRN_STORE_TIER_GPU_MOVER_H_
#define CAIRN_STORE_TIER_GPU_MOVER_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "store/base/entry.h"
#include "store/base/status.h"
#include "store/device/gpu_memory.h"
#include "store/device/gpu_part_check.h"
#include "store/tier/gpu_tier.h"
#include "store/tier/host_tier.h"

namespace cairn::store {

struct GpuMoverStats {
  uint64_t promoted_entries = 0, promoted_bytes = 0;
  uint64_t demoted_entries = 0, demoted_bytes = 0;
  uint64_t failed_entries = 0;  // cancelled ones too, and those that were there already
  uint64_t waiting_entries = 0, underway_bytes = 0;
};

class GpuMover {
 public:
  using Done = std::function<void(const EntryKey& key, const absl::Status& status)>;
  struct Options {
    uint64_t underway_bytes_max = 64ull << 20;  // of copies begun; a single one may exceed it
    size_t waiting_entries_max = 4096;
  };
  // `host`'s arena must be pinned on `gpu`.
  static absl::StatusOr<std::unique_ptr<GpuMover>> Create(Gpu& gpu, HostTier& host, GpuTier& tier,
                                                          const Options& options);
  // Waits for what is under way; nothing of it is published and nobody is told.
  ~GpuMover();

  // RESOURCE_EXHAUSTED: as many are waiting as may.
  absl::Status Promote(HostPin pin, Done done);
  absl::Status Demote(GpuPin pin, Done done);
  // Every move of this entry, waiting or under way: its `done` is told ABORTED by the next Step
  // that comes upon it.
  void Cancel(const EntryKey& key);

  // Publishes what has arrived, begins what may be begun. Does not wait for the device.
  void Step();
  // Waits until the next Step has something to do. False at once: nothing is waiting or under way.
  bool Wait();

  GpuMoverStats stats() const;

 private:
  static constexpr size_t kBatchEntriesMax = 256;
  static constexpr GpuMark kNoMark = UINT64_MAX;
  // Moves that are begun together share a mark, and those that go up a check. Two, in turn: one is
  // looked after while the other is copied.
  struct Batch {
    std::unique_ptr<GpuPartCheck> check;
    size_t left = 0;  // moves under way
  };
  // One of each pair of pins, and of rooms.
  struct Move {
    EntryKey key;
    uint64_t bytes = 0;
    EntryMeta meta;  // until it is published
    HostPin up;
    GpuPin down;
    Done done;
    std::atomic<bool> cancelled{false};
    HostRoom host_room;
    GpuRoom gpu_room;
    Batch* batch = nullptr;
    size_t checked_as = 0;  // of the batch's subjects
    GpuMark mark = kNoMark;
  };
  using MovePtr = std::unique_ptr<Move>;

  GpuMover(HostTier& host, GpuTier& tier, std::unique_ptr<GpuStream> stream, const Options& options)
      : host_(host), tier_(tier), options_(options), stream_(std::move(stream)) {}
  absl::Status Enqueue(MovePtr move);
  void Arrive();
  void BeginAll();
  // The next one that may be begun now in a batch with so much, as `beginning_` too; null: none.
  MovePtr NextToBegin(size_t batch_entries, uint64_t batch_bytes);
  // Begins what may be, as one batch. False: nothing may.
  bool BeginBatch(Batch& batch);
  absl::StatusOr<GpuMark> Seal(Batch& batch, std::span<Move* const> moves);
  MovePtr TakeLastUnderway();
  absl::Status Begin(Move& move);
  absl::Status BeginUp(Move& move);
  absl::Status BeginDown(Move& move);
  absl::Status Publish(Move& move);
  void End(MovePtr move, const absl::Status& status);
  // The same where the device did not say whether it is still writing: the rooms are kept.
  void Strand(MovePtr move, const absl::Status& status);
  void Count(const Move& move, const absl::Status& status);

  HostTier& host_;
  GpuTier& tier_;
  const Options options_;
  std::unique_ptr<GpuStream> stream_;
  std::array<Batch, 2> batches_;  // Step's

  mutable std::mutex mutex_;
  std::deque<MovePtr> waiting_;  // guarded by mutex_, as is all below
  Move* beginning_ = nullptr;
  std::deque<MovePtr> underway_;  // in the order of their marks
  std::vector<MovePtr> stranded_;
  GpuMoverStats stats_;
};

}  // namespace cairn::store

#endif  // CAIRN_STORE_TIER_GPU_MOVER_H_
