#include "cache/core/waiter.h"

#include "absl/time/time.h"

namespace cairn::cache {

void ClockWaiter::Wait(absl::Mutex& mutex, absl::CondVar& signal, int64_t deadline_nanos) {
  if (deadline_nanos == kNoDeadline) {
    signal.Wait(&mutex);
    return;
  }
  const int64_t left = deadline_nanos - clock_.NowNanos();
  if (left > 0) signal.WaitWithTimeout(&mutex, absl::Nanoseconds(left));
}

}  // namespace cairn::cache
