// mutex.h: std::mutex and std::condition_variable, with absl's lock annotations. ThreadSanitizer
// sees these; it does not see into Debian's absl::Mutex, whose library is built without it, and
// would report every access as a race.
//
// Threads: any. CondVar waits may end for no reason: callers check and wait again. Await waits for
// a condition of what the mutex guards, which every Unlock may have made true.
#ifndef CAIRN_STORE_BASE_MUTEX_H_
#define CAIRN_STORE_BASE_MUTEX_H_

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"

namespace cairn {

class ABSL_LOCKABLE Mutex {
 public:
  void Lock() ABSL_EXCLUSIVE_LOCK_FUNCTION() { mutex_.lock(); }
  void Unlock() ABSL_UNLOCK_FUNCTION() {
    // Before the mutex is free: whoever wakes may destroy it.
    if (awaiting_ > 0) changed_.notify_all();
    mutex_.unlock();
  }

  template <typename Condition>
  void Await(Condition condition) ABSL_EXCLUSIVE_LOCKS_REQUIRED(this) {
    Awaiting([&](auto& lock) {
      changed_.wait(lock, condition);
      return true;
    });
  }
  // Whether it became true in time.
  template <typename Condition>
  bool AwaitWithTimeout(Condition condition, absl::Duration timeout)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(this) {
    // An infinite one would overflow.
    const auto bounded = absl::ToChronoNanoseconds(std::min(timeout, absl::Hours(24 * 365)));
    return Awaiting([&](auto& lock) { return changed_.wait_for(lock, bounded, condition); });
  }

 private:
  friend class CondVar;

  template <typename Wait>
  bool Awaiting(Wait wait) {
    // What was changed before this wait, others may be awaiting.
    if (awaiting_ > 0) changed_.notify_all();
    std::unique_lock<std::mutex> lock(mutex_, std::adopt_lock);
    ++awaiting_;
    const bool is_true = wait(lock);
    --awaiting_;
    lock.release();
    return is_true;
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  int awaiting_ = 0;
};

class ABSL_SCOPED_LOCKABLE MutexLock {
 public:
  explicit MutexLock(Mutex* mutex) ABSL_EXCLUSIVE_LOCK_FUNCTION(mutex) : mutex_(mutex) {
    mutex_->Lock();
  }
  ~MutexLock() ABSL_UNLOCK_FUNCTION() { mutex_->Unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex* const mutex_;
};

class CondVar {
 public:
  void Wait(Mutex* mutex) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    std::unique_lock<std::mutex> lock(mutex->mutex_, std::adopt_lock);
    condition_.wait(lock);
    lock.release();
  }
  void WaitWithTimeout(Mutex* mutex, absl::Duration timeout) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    std::unique_lock<std::mutex> lock(mutex->mutex_, std::adopt_lock);
    condition_.wait_for(lock, absl::ToChronoNanoseconds(timeout));
    lock.release();
  }
  void Signal() { condition_.notify_one(); }
  void SignalAll() { condition_.notify_all(); }

 private:
  std::condition_variable condition_;
};

}  // namespace cairn

#endif  // CAIRN_STORE_BASE_MUTEX_H_
