// sim_clock.h: time that passes only when the simulation says so.
//
// Threads: one. Units: clock.h.
#ifndef CAIRN_TESTS_SIM_SIM_CLOCK_H_
#define CAIRN_TESTS_SIM_SIM_CLOCK_H_

#include <algorithm>

#include "store/base/clock.h"

namespace cairn::sim {

class SimClock final : public Clock {
 public:
  int64_t NowNanos() const override { return nanos_; }
  int64_t WallMicros() const override { return wall_micros_ + nanos_ / 1000; }

  void Advance(absl::Duration by) { nanos_ += absl::ToInt64Nanoseconds(by); }
  void AdvanceTo(int64_t nanos) { nanos_ = std::max(nanos_, nanos); }
  // Somebody sets the wall clock; it may go back.
  void SetWall(absl::Duration by) { wall_micros_ += absl::ToInt64Microseconds(by); }

 private:
  int64_t nanos_ = 1'000'000'000;
  int64_t wall_micros_ = 1'700'000'000'000'000;
};

}  // namespace cairn::sim

#endif  // CAIRN_TESTS_SIM_SIM_CLOCK_H_
