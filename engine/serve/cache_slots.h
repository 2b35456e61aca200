// cache_slots.h: one session with the cache, shared by as many sequences as run at once. Each takes
// a slot, which is a PrefixCache of its own, and gives it back.
//
// A cache that is lost (dead, hung, lying) is lost to all slots at once, at the price of one
// deadline; requests go on without it. While it is lost, connecting is tried again in the
// background, at most every Options::retry; no request waits for that.
//
// Threads:   any. A slot belongs to one thread at a time.
// Ownership: the slots are this object's, and must be given back before it dies.
// Errors:    said once, to Options::say; Take's null is not one.
#ifndef CAIRN_ENGINE_SERVE_CACHE_SLOTS_H_
#define CAIRN_ENGINE_SERVE_CACHE_SLOTS_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "cache/client/cache_api.h"
#include "engine/resume/prefix_cache.h"
#include "store/base/mutex.h"

namespace cairn::engine {

// What the slots share; lost is set by the first call that finds the daemon gone.
struct CacheSession {
  std::unique_ptr<cache::CacheApi> api;
  std::atomic<bool> lost{false};
  std::shared_ptr<PutQueue> puts;  // by way of `api`: goes first
};

class CacheSlot {
 public:
  CacheSlot(std::shared_ptr<CacheSession> session, const CachedModel& model, Clock& clock,
            PrefixCache::Options options);

  PrefixCache& cache() { return cache_; }
  bool lost() const { return session_->lost.load() || !cache_.attached(); }
  // What one slot does not believe any more, no other should.
  void LoseSession() { session_->lost = true; }
  // Once *interrupt is true, a wait for another engine's prefill ends within a second. The flag
  // outlives the use of the slot.
  void InterruptBy(const std::atomic<bool>* interrupt) { interrupt_->store(interrupt); }

 private:
  const std::shared_ptr<CacheSession> session_;
  const std::shared_ptr<std::atomic<const std::atomic<bool>*>> interrupt_;
  PrefixCache cache_;
};

class CacheSlots {
 public:
  using Connect = std::function<absl::StatusOr<std::unique_ptr<cache::CacheApi>>()>;
  struct Options {
    absl::Duration wait = absl::Seconds(30);  // for another engine's prefill
    absl::Duration retry = absl::Seconds(5);
    uint64_t put_queue_bytes = 512ull << 20;  // of all slots
    // As PrefixCache::Options.
    uint64_t overlap_bytes_min = 1 << 20;
    int64_t step_tokens = 256;
    std::function<void(const std::string&)> say = {};  // lost, and found again
  };
  // Connects, once, before it returns. What `model` refers to and `clock` outlive this.
  CacheSlots(Connect connect, const CachedModel& model, Clock& clock, Options options);
  ~CacheSlots();

  // Null: there is no cache at the moment.
  CacheSlot* Take();
  void Give(CacheSlot* slot);

  // Rows that sequences have in common.
  const SharedRows& shared_rows() const { return shared_; }
  bool attached() const;
  // Returns when no attempt to connect is under way.
  void AwaitConnect();
  // Waits until everything queued is put. REQUIRES: all slots were given back.
  void Flush(absl::Duration deadline);
  PutStats put_stats() const;  // of all sessions there ever were

 private:
  void Reconnect();
  void ConnectOnce();
  void RemoveLocked(CacheSlot* slot) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SayLocked(const std::string& line) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Connect connect_;
  const CachedModel model_;
  Clock& clock_;
  const Options options_;
  SharedRows shared_;
  const std::shared_ptr<CostModel> costs_ = std::make_shared<CostModel>();  // of all slots
  mutable Mutex mutex_;
  std::shared_ptr<CacheSession> session_ ABSL_GUARDED_BY(mutex_);  // null: lost
  std::vector<std::unique_ptr<CacheSlot>> all_ ABSL_GUARDED_BY(mutex_);
  std::vector<CacheSlot*> free_ ABSL_GUARDED_BY(mutex_);
  // Slots whose session was lost. Their end may wait for a call in progress, so it is the
  // connector's to await.
  std::vector<std::unique_ptr<CacheSlot>> lost_ ABSL_GUARDED_BY(mutex_);
  PutStats gone_ ABSL_GUARDED_BY(mutex_);  // put by sessions that are no more
  int64_t retry_at_nanos_ ABSL_GUARDED_BY(mutex_) = 0;
  bool connecting_ ABSL_GUARDED_BY(mutex_) = false;
  bool said_ ABSL_GUARDED_BY(mutex_) = false;  // that it is lost
  std::thread connector_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_SERVE_CACHE_SLOTS_H_
