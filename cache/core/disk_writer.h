// disk_writer.h: moves committed entries from host memory to disk, in the order of their commits,
// several a batch.
//
// While a batch is written the one before it is made durable and found, and the one after it is
// given room; so the device has work as long as something is queued. Batches are found in order.
//
// What an entry builds on (its parent's rows; for a checkpoint, its own block's rows) is on disk
// before it or goes with it, so a restart never finds an entry whose ancestors are missing. The
// tier checks each part before anybody is told that it is saved. An entry that cannot be written
// stays in host memory; it is tried again when a descendant is committed or on Drain. The queue
// holds only entries that lie in the arena, so the arena bounds it.
//
// Threads:   any. With `background` it has a thread of its own, and another while batches follow
//            each other; without, WaitSaved and Drain do the work themselves (tests, simulation).
// Ownership: residency, waiter and expiry outlive it. Destruction writes what is queued.
// Errors:    RESOURCE_EXHAUSTED (disk full), DATA_LOSS (damaged in host memory before it was
// written).
#ifndef CAIRN_CACHE_CORE_DISK_WRITER_H_
#define CAIRN_CACHE_CORE_DISK_WRITER_H_

#include <deque>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "cache/core/expiry.h"
#include "cache/core/residency.h"
#include "cache/core/waiter.h"

namespace cairn::cache {

class DiskWriter {
 public:
  DiskWriter(Residency& residency, Waiter& waiter, Expiry& expiry, bool background);
  ~DiskWriter();

  // REQUIRES: the entry is in host memory.
  void Enqueue(EntryRef ref) ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex);
  // Returns when the entry would survive power loss. REQUIRES: the caller holds the entry.
  absl::Status WaitSaved(EntryRef ref) ABSL_LOCKS_EXCLUDED(residency_.mutex);
  // Tries failed entries again, then waits until nothing is queued.
  absl::Status Drain(int64_t deadline_nanos, Clock& clock) ABSL_LOCKS_EXCLUDED(residency_.mutex);
  uint64_t queued_entries() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex) {
    return queue_.size() + under_way_.size();
  }

 private:
  struct Job;
  struct Batch;
  // No block for index 0.
  EntryRef FoundationOf(EntryRef ref) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex);
  void Run();
  // Batch after batch, until nothing is queued or somebody else wants the disk.
  void WriteQueued() ABSL_LOCKS_EXCLUDED(residency_.disk_mutex, residency_.mutex);
  // The next batch with room on disk, or the status that says why it has none. None: nothing is
  // queued, or somebody else wants the disk.
  std::optional<Batch> TakeBatch() ABSL_LOCKS_EXCLUDED(residency_.mutex);
  std::vector<Job> TakeJobs() ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex);
  // Whether the entry can be written now. If its foundation must go first, both are put back in
  // front.
  bool FoundationReady(EntryRef ref) ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex);
  void Publish(Batch& batch) ABSL_LOCKS_EXCLUDED(residency_.mutex);
  // A batch that failed, again and alone: room is made for it, and what of it can be kept is.
  void PutAlone(Batch batch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.disk_mutex)
      ABSL_LOCKS_EXCLUDED(residency_.mutex);
  // Puts it back in front of the queue.
  void GiveUp(std::optional<Batch> batch) ABSL_LOCKS_EXCLUDED(residency_.mutex);
  // It is no longer under way.
  void LetGo(Job& job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex);
  void Finish(std::vector<Job>& jobs) ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex);
  void Fail(EntryRef ref, const absl::Status& status)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex);
  // One step of waiting: works itself, or waits for the thread.
  void Progress(int64_t deadline_nanos) ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex);

  Residency& residency_;
  Waiter& waiter_;
  Expiry& expiry_;  // has its turn after each batch
  const uint64_t batch_bytes_max_;
  std::deque<EntryKey> queue_;               // guarded by residency_.mutex, as all below
  absl::flat_hash_set<EntryKey> under_way_;  // taken from the queue, not finished
  bool stop_ = false;
  bool failing_ = false;  // said so already
  absl::Status last_failure_;
  CondVar work_, settled_;
  std::thread thread_;
};

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_CORE_DISK_WRITER_H_
