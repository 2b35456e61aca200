#include "cache/core/waiter.h"

#include <algorithm>

#include "absl/time/time.h"

namespace cairn::cache {

void ClockWaiter::Wait(Mutex& mutex, CondVar& signal, int64_t deadline_nanos) {
  if (deadline_nanos == kNoDeadline) {
    signal.Wait(&mutex);
    return;
  }
  // At most a day at once: far deadlines must not overflow the system's clock.
  const absl::Duration left = absl::Nanoseconds(deadline_nanos - clock_.NowNanos());
  if (left > absl::ZeroDuration()) signal.WaitWithTimeout(&mutex, std::min(left, absl::Hours(24)));
}

}  // namespace cairn::cache
