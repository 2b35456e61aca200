// mutex.h: std::mutex and std::condition_variable, with absl's lock annotations. ThreadSanitizer
// sees these; it does not see into Debian's absl::Mutex, whose library is built without it, and
// would report every access as a race.
//
// Threads: any. CondVar waits may end for no reason: callers check and wait again. Await waits for
// a condition of what the mutex guards. Whoever gives the mutex up looks at the conditions of those
// that await and wakes one whose condition is true, who does likewise: nobody is woken in vain. So
// a condition is called by other threads too, with the mutex held.
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
    WakeOne();
    mutex_.unlock();
  }

  template <typename Condition>
  void Await(Condition condition) ABSL_EXCLUSIVE_LOCKS_REQUIRED(this) {
    Awaiting(condition, [&](std::condition_variable& woken, auto& lock) {
      woken.wait(lock, condition);
      return true;
    });
  }
  // Whether it became true in time.
  template <typename Condition>
  bool AwaitWithTimeout(Condition condition, absl::Duration timeout)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(this) {
    // An infinite one would overflow.
    const auto bounded = absl::ToChronoNanoseconds(std::min(timeout, absl::Hours(24 * 365)));
    return Awaiting(condition, [&](std::condition_variable& woken, auto& lock) {
      return woken.wait_for(lock, bounded, condition);
    });
  }

 private:
  friend class CondVar;

  struct Waiter {
    bool (*is_true)(void* condition);
    void* condition;
    Waiter* previous;
    Waiter* next;
    std::condition_variable woken = {};
  };

  // REQUIRES: the mutex is held and about to be given up.
  void WakeOne() {
    for (Waiter* waiter = first_; waiter != nullptr; waiter = waiter->next) {
      if (waiter->is_true(waiter->condition)) return waiter->woken.notify_one();
    }
  }

  template <typename Condition, typename Wait>
  bool Awaiting(Condition& condition, Wait wait) {
    if (condition()) return true;
    WakeOne();
    Waiter waiter{.is_true = [](void* c) -> bool { return (*static_cast<Condition*>(c))(); },
                  .condition = &condition,
                  .previous = last_,
                  .next = nullptr};
    (last_ == nullptr ? first_ : last_->next) = &waiter;
    last_ = &waiter;
    std::unique_lock<std::mutex> lock(mutex_, std::adopt_lock);
    const bool is_true = wait(waiter.woken, lock);
    lock.release();
    (waiter.previous == nullptr ? first_ : waiter.previous->next) = waiter.next;
    (waiter.next == nullptr ? last_ : waiter.next->previous) = waiter.previous;
    return is_true;
  }

  std::mutex mutex_;
  Waiter* first_ = nullptr;  // the longest waiting; guarded by mutex_, as is last_
  Waiter* last_ = nullptr;
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
    mutex->WakeOne();
    std::unique_lock<std::mutex> lock(mutex->mutex_, std::adopt_lock);
    condition_.wait(lock);
    lock.release();
  }
  void WaitWithTimeout(Mutex* mutex, absl::Duration timeout) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    mutex->WakeOne();
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
