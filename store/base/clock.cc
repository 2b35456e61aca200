#include "store/base/clock.h"

#include <ctime>

namespace cairn {
namespace {

class SystemClock final : public Clock {
 public:
  int64_t NowNanos() const override { return Read(CLOCK_MONOTONIC); }
  int64_t WallMicros() const override { return Read(CLOCK_REALTIME) / 1000; }

 private:
  static int64_t Read(clockid_t id) {
    timespec t{};
    clock_gettime(id, &t);
    return static_cast<int64_t>(t.tv_sec) * 1'000'000'000 + t.tv_nsec;
  }
};

}  // namespace

Clock& RealClock() {
  static SystemClock& clock = *new SystemClock;  // threads may outlive what ends with the process
  return clock;
}

}  // namespace cairn
