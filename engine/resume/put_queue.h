// put_queue.h: puts finished entries in the background, so that a prefill never waits for the
// cache.
//
// Threads:   Add and Flush from any thread; one worker talks to the cache.
// Ownership: an item shares its bytes; they must not change until it is put.
// Bounds:    items beyond `bytes_max` are dropped and counted, never waited for. When the daemon is
//            gone, or kDeadlinesMissedMax calls in a row were not answered in time, the queue is
//            detached: everything is dropped at once. (One late answer is no reason to leave: no
//            request waits here, and the deadline is one for requests.)
#ifndef CAIRN_ENGINE_RESUME_PUT_QUEUE_H_
#define CAIRN_ENGINE_RESUME_PUT_QUEUE_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "cache/client/cache_api.h"
#include "store/base/mutex.h"

namespace cairn::engine {

inline constexpr int kDeadlinesMissedMax = 3;

struct PutItem {
  cache::ReserveItem name;
  std::optional<uint64_t>
      reservation;  // unset: the worker reserves; an entry that exists is skipped
  std::shared_ptr<const uint8_t> bytes;
  std::vector<uint32_t> part_bytes;

  uint64_t size() const {
    uint64_t sum = 0;
    for (const uint32_t part : part_bytes) sum += part;
    return sum;
  }
};

struct PutStats {
  uint64_t put_entries = 0;
  uint64_t put_bytes = 0;
  uint64_t existing_entries = 0;  // somebody else had put them
  uint64_t dropped_entries = 0;   // queue full, refused or detached
  std::string last_error;
};

class PutQueue {
 public:
  PutQueue(std::shared_ptr<cache::CacheApi> cache, uint64_t bytes_max);
  ~PutQueue();  // drops what is queued; waits for the call in progress

  void Add(PutItem item);
  // Gives reservations back that nothing will be put for, so that nobody waits for them. An item
  // that is dropped gives its own back.
  void Abandon(std::vector<uint64_t> reservations);
  bool Flush(absl::Duration deadline);
  bool detached() const;
  PutStats stats() const;

 private:
  void Work();
  std::vector<PutItem> TakeBatch() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool IdleLocked() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return queue_.empty() && abandoned_.empty() && !busy_;
  }
  void DropLocked(const std::vector<PutItem>& batch, const absl::Status& why)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // After a batch that ended so.
  bool DaemonIsGoneLocked(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status PutBatch(std::vector<PutItem>& batch);
  absl::Status FillReservations(std::vector<PutItem>& batch);

  const std::shared_ptr<cache::CacheApi> cache_;
  const uint64_t bytes_max_;
  mutable Mutex mutex_;
  std::deque<PutItem> queue_ ABSL_GUARDED_BY(mutex_);
  std::vector<uint64_t> abandoned_ ABSL_GUARDED_BY(mutex_);
  uint64_t queued_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  bool busy_ ABSL_GUARDED_BY(mutex_) = false;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  bool detached_ ABSL_GUARDED_BY(mutex_) = false;
  int deadlines_missed_ ABSL_GUARDED_BY(mutex_) = 0;  // in a row
  PutStats stats_ ABSL_GUARDED_BY(mutex_);
  std::thread worker_;
};

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_RESUME_PUT_QUEUE_H_
