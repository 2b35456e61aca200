// disk_writer.h: moves committed entries from host memory to disk, in the order of their commits,
// several a batch.
//
// What an entry builds on (its parent's rows; for a checkpoint, its own block's rows) is on disk
// before it or goes with it, so a restart never finds an entry whose ancestors are missing. The
// tier checks each part before anybody is told that it is saved. An entry that cannot be written
// stays in host memory; it is tried again when a descendant is committed or on Drain. The queue
// holds only entries that lie in the arena, so the arena bounds it.
//
// Threads:   any. With `background` it has one thread of its own; without, WaitSaved and Drain do
// the work themselves,
//            one step at a time (tests, simulation).
// Ownership: residency, waiter and expiry outlive it. Destruction writes what is queued.
// Errors:    RESOURCE_EXHAUSTED (disk full), DATA_LOSS (damaged in host memory before it was
// written).
#ifndef CAIRN_CACHE_CORE_DISK_WRITER_H_
#define CAIRN_CACHE_CORE_DISK_WRITER_H_

#include <deque>
#include <memory>
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
    return queue_.size() + batch_entries_;
  }

 private:
  struct Job;
  // No block for index 0.
  EntryRef FoundationOf(EntryRef ref) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex);
  void Run();
  void WriteBatch();
  std::vector<Job> TakeBatch() ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex);
  // Whether the entry can be written now. If its foundation must go first, both are put back in
  // front.
  bool FoundationReady(EntryRef ref, const absl::flat_hash_set<EntryKey>& in_batch)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex);
  void Put(std::vector<Job>& jobs) ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.disk_mutex);
  void Finish(std::vector<Job>& jobs) ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex);
  void Fail(EntryRef ref, const absl::Status& status)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex);
  // One step of waiting: works itself, or waits for the thread.
  void Progress(int64_t deadline_nanos) ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex);

  Residency& residency_;
  Waiter& waiter_;
  Expiry& expiry_;  // has its turn after each batch
  const uint64_t batch_bytes_max_;
  std::deque<EntryKey> queue_;  // guarded by residency_.mutex, as all below
  size_t batch_entries_ = 0;    // of the batch being written
  bool stop_ = false;
  bool failing_ = false;  // said so already
  absl::Status last_failure_;
  CondVar work_, settled_;
  std::thread thread_;
};

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_CORE_DISK_WRITER_H_
