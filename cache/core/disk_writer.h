// disk_writer.h: moves committed entries from host memory to disk, in the order of their commits,
// several a batch.
//
// A batch is staged (its bytes written), then published (durable, catalogued, recorded). While one
// is published the next is staged, so the device need not wait for a sync. Batches are published in
// the order in which they were staged, those that wait together, with one sync.
//
// What an entry builds on (its parent's rows; for a checkpoint, its own block's rows) is on disk
// before it or goes with it, so a restart never finds an entry whose ancestors are missing: before
// a batch is published, what the earlier ones came to is known. The tier checks each part before
// anybody is told that it is saved. An entry that cannot be written stays in host memory; it is
// tried again when a descendant is committed or on Drain. The queue holds only entries that lie in
// the arena, so the arena bounds it; what is staged is held in the arena, a quarter of it at most.
//
// Threads:   any. With `background` it has two threads of its own, one a stage; without, WaitSaved
//            and Drain do the work themselves, one step at a time (tests, simulation).
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
  // Returns when no batch that is in flight now is in flight any more: their entries are held, and
  // cannot be evicted.
  void AwaitFlight() ABSL_LOCKS_EXCLUDED(residency_.mutex);

  // The stages, by hand, without `background`. Stage writes one batch; Publish finishes all that
  // are staged.
  void Stage() ABSL_LOCKS_EXCLUDED(residency_.mutex);
  void Publish() ABSL_LOCKS_EXCLUDED(residency_.mutex);

 private:
  struct Job;
  struct Batch;
  // No block for index 0.
  EntryRef FoundationOf(EntryRef ref) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex);
  void RunStage();
  void RunPublish();
  bool MayStage() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex);
  std::vector<Job> TakeBatch() ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex);
  // Whether the entry can be written now. If its foundation must go first, both are put back in
  // front.
  bool FoundationReady(EntryRef ref) ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex);
  // Fails the jobs whose foundation was not saved by an earlier batch and is not in these.
  void FailUnfounded(std::vector<Batch>& batches) ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex);
  absl::Status PublishTogether(std::vector<Batch>& batches);
  void PutAgain(std::vector<Batch>& batches) ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.disk_mutex)
      ABSL_LOCKS_EXCLUDED(stage_mutex_);
  void Finish(std::vector<Batch>& batches) ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex);
  void Fail(EntryRef ref, const absl::Status& status)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex);
  // One step of waiting: works itself, or waits for the thread.
  void Progress(int64_t deadline_nanos) ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex);

  Residency& residency_;
  Waiter& waiter_;
  const uint64_t batch_bytes_max_;
  // Held while a batch is staged, and while room is made for one that is put again: nobody else
  // takes that room. After residency_.disk_mutex, before residency_.mutex.
  Mutex stage_mutex_;
  std::deque<EntryKey> queue_;  // guarded by residency_.mutex, as all below
  std::vector<Batch> staged_;
  absl::flat_hash_set<EntryKey> in_flight_;  // taken and not finished
  uint64_t batches_taken_ = 0, batches_finished_ = 0;
  bool stop_ = false;        // once the queue is empty
  bool all_staged_ = false;  // the staging thread has ended
  bool failing_ = false;     // said so already
  absl::Status last_failure_;
  CondVar work_, settled_, publish_;
  std::thread stage_thread_, publish_thread_;
};

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_CORE_DISK_WRITER_H_
