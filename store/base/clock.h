// clock.h: the only door to time. Production uses RealClock(); tests turn FakeClock by hand.
//
// Units: nanoseconds since an arbitrary start that never goes back (Now), wall-clock microseconds
// since 1970 (WallMicros; for records and listings, never for decisions). Threads: any.
#ifndef CAIRN_STORE_BASE_CLOCK_H_
#define CAIRN_STORE_BASE_CLOCK_H_

#include <atomic>
#include <cstdint>

#include "absl/time/time.h"

namespace cairn {

class Clock {
 public:
  virtual ~Clock() = default;
  virtual int64_t NowNanos() const = 0;
  virtual int64_t WallMicros() const = 0;
};

// Lives for the whole process.
Clock& RealClock();

class FakeClock final : public Clock {
 public:
  int64_t NowNanos() const override { return nanos_.load(); }
  int64_t WallMicros() const override { return nanos_.load() / 1000; }
  void Advance(absl::Duration d) { nanos_ += absl::ToInt64Nanoseconds(d); }

 private:
  std::atomic<int64_t> nanos_{1'000'000'000};
};

}  // namespace cairn

#endif  // CAIRN_STORE_BASE_CLOCK_H_
