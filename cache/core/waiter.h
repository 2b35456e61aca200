// waiter.h: the door to waiting. The core waits for other threads only here, against the Clock's
// time, so that a test (or a simulation) decides when time passes.
//
// Threads: any. Units: nanoseconds of Clock::NowNanos.
#ifndef CAIRN_CACHE_CORE_WAITER_H_
#define CAIRN_CACHE_CORE_WAITER_H_

#include <cstdint>
#include <limits>

#include "store/base/clock.h"
#include "store/base/mutex.h"

namespace cairn::cache {

inline constexpr int64_t kNoDeadline = std::numeric_limits<int64_t>::max();

class Waiter {
 public:
  virtual ~Waiter() = default;
  // Gives up `mutex` until `signal`, the deadline or, seldom, nothing at all: callers check and
  // wait again.
  virtual void Wait(Mutex& mutex, CondVar& signal, int64_t deadline_nanos) = 0;
};

class ClockWaiter final : public Waiter {
 public:
  explicit ClockWaiter(Clock& clock) : clock_(clock) {}
  void Wait(Mutex& mutex, CondVar& signal, int64_t deadline_nanos) override;

 private:
  Clock& clock_;
};

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_CORE_WAITER_H_
