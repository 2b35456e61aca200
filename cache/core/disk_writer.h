// disk_writer.h: moves committed entries from host memory to disk, in the order of their commits,
// several a batch and several batches side by side.
//
// A batch takes its room on disk, is written and synced, and becomes found. Batches take room and
// become found one after another, in the order of their commits; between the two they are written
// side by side, so the device has something to write while a batch is synced and catalogued.
//
// What an entry builds on (its parent's rows; for a checkpoint, its own block's rows) is on disk
// before it or goes with it, so a restart never finds an entry whose ancestors are missing: before
// a batch becomes found, what the earlier ones came to is known. The tier checks each part before
// anybody is told that it is saved. An entry that cannot be written stays in host memory; it is
// tried again when a descendant is committed or on Drain. The queue holds only entries that lie in
// the arena, so the arena bounds it; what is in flight is held there, a quarter of it at most.
//
// Threads:   any. With `background` it has threads of its own; without, WaitSaved and Drain do the
//            work themselves, a batch each (tests, simulation).
// Ownership: residency and waiter outlive it. Destruction writes what is queued.
// Errors:    RESOURCE_EXHAUSTED (disk full), DATA_LOSS (damaged in host memory before it was
//            written).
#ifndef CAIRN_CACHE_CORE_DISK_WRITER_H_
#define CAIRN_CACHE_CORE_DISK_WRITER_H_

#include <deque>
#include <memory>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "cache/core/residency.h"
#include "cache/core/waiter.h"

namespace cairn::cache {

class DiskWriter {
 public:
  DiskWriter(Residency& residency, Waiter& waiter, bool background);
  ~DiskWriter();

  // REQUIRES: the entry is in host memory.
  void Enqueue(EntryRef ref) ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex);
  // Returns when the entry would survive power loss. REQUIRES: the caller holds the entry.
  absl::Status WaitSaved(EntryRef ref) ABSL_LOCKS_EXCLUDED(residency_.mutex);
  // Tries failed entries again, then waits until nothing is queued.
  absl::Status Drain(int64_t deadline_nanos, Clock& clock) ABSL_LOCKS_EXCLUDED(residency_.mutex);
  uint64_t queued_entries() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex) {
    return queue_.size() + in_flight_.size();
  }

  // While it lives no batch is in flight, so no entry is held for one and kept from being evicted.
  // Making one waits for those that are.
  class Pause {
   public:
    explicit Pause(DiskWriter& writer);
    ~Pause();
    Pause(const Pause&) = delete;
    Pause& operator=(const Pause&) = delete;

   private:
    DiskWriter& writer_;
  };

 private:
  struct Job;
  struct Batch;
  // No block for index 0.
  EntryRef FoundationOf(EntryRef ref) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex);
  void Run();
  // Whether one more batch may be taken now.
  bool MayTake() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex);
  // Writes one batch, if one may be taken.
  void WriteBatch() ABSL_LOCKS_EXCLUDED(residency_.disk_mutex, residency_.mutex);
  // Takes the next batch and room for it. False: there is none to take.
  bool Begin(Batch& batch) ABSL_LOCKS_EXCLUDED(residency_.disk_mutex, residency_.mutex);
  // Makes a written batch found and finishes it. False: not as a whole. REQUIRES: its turn.
  bool Publish(Batch& batch) ABSL_LOCKS_EXCLUDED(residency_.disk_mutex, residency_.mutex);
  void TakeJobs(Batch& batch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex);
  // Whether the entry can be written now. If its foundation must go first, both are put back in
  // front.
  bool FoundationReady(EntryRef ref) ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex);
  // Whether all that the batch builds on is on disk or in it. REQUIRES: its turn.
  bool Founded(const Batch& batch) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex);
  // What fits is kept, and what is damaged (the tier looks) is known. Finishes the batch.
  void PutOneByOne(Batch& batch) ABSL_LOCKS_EXCLUDED(residency_.disk_mutex, residency_.mutex);
  void Finish(Batch& batch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex);
  void Fail(EntryRef ref, const absl::Status& status)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex);
  // One step of waiting: works itself, or waits for others.
  void Progress(int64_t deadline_nanos) ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex);

  Residency& residency_;
  Waiter& waiter_;
  const uint64_t batch_bytes_max_;
  // Held while a batch is taken and room for it, and while entries are put one by one: nobody else
  // takes the room that is made for them. Before residency_.disk_mutex.
  Mutex room_mutex_;
  std::deque<EntryKey> queue_;               // guarded by residency_.mutex, as all below
  absl::flat_hash_set<EntryKey> in_flight_;  // taken and not finished
  uint64_t batches_taken_ = 0, batches_finished_ = 0;
  bool short_of_room_ = false;  // the batch taken last found none: no other until it is finished
  int pauses_ = 0;
  bool stop_ = false;
  bool failing_ = false;  // said so already
  absl::Status last_failure_;
  CondVar work_, settled_;
  std::vector<std::thread> threads_;
};

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_CORE_DISK_WRITER_H_
