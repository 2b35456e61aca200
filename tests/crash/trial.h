// trial.h: one crash and what comes of it: copy the prepared store, let clients work, kill the
// daemon (in recovery again, if asked), start it, audit it, work on, stop it cleanly, check the
// directory.
//
// Threads: one caller; a trial runs its clients in threads of its own.
// Errors:  DATA_LOSS: a promise is broken; UNAVAILABLE: a hang. Both leave the directory for a
// look.
#ifndef CAIRN_TESTS_CRASH_TRIAL_H_
#define CAIRN_TESTS_CRASH_TRIAL_H_

#include <array>
#include <cstdint>
#include <string>

#include "tests/crash/daemon_process.h"
#include "tests/crash/oracle.h"
#include "tests/crash/store_audit.h"

namespace cairn::crash {

enum class TrialKind : uint8_t {
  kPoint,    // killed at a named point
  kRandom,   // killed at a random moment
  kDouble,   // killed while working, then up to kCrashesDeepMax times at the starts that follow
  kIdle,     // killed full and at rest: everything sealed is served again
  kCatalog,  // killed while working, then the catalog is deleted
};
inline constexpr uint64_t kCrashesDeepMax = 5;

struct Trial {
  TrialKind kind = TrialKind::kRandom;
  FaultPoint point = FaultPoint::kReserveMade;  // of kPoint
  uint64_t seed = 0;
};

struct TrialResult {
  uint64_t kills = 0;
  uint64_t kills_at_start = 0;  // of these, before or just when the daemon served
  uint64_t operations = 0;
  uint64_t bytes_verified = 0;                       // by working clients
  std::array<uint64_t, kFaultPoints.size()> hits{};  // in all lives
  AuditResult audit;
  int64_t first_hit_nanos = 0;  // from the exec of the last start to the first verified hit
  uint64_t sealed_before = 0;   // of kIdle: entries on disk at rest, and served after
  uint64_t sealed_after = 0;
};

// Makes <place.work>/data: a store at its limit, stopped cleanly, that trials start from.
absl::Status PrepareStore(const DaemonPlace& place, uint64_t seed, Oracle& oracle);

// `prepared`, `known`: where PrepareStore was and what it learnt; place.work is made anew.
absl::StatusOr<TrialResult> RunTrial(const Trial& trial, const DaemonPlace& prepared,
                                     const DaemonPlace& place, const Oracle& known);

}  // namespace cairn::crash

#endif  // CAIRN_TESTS_CRASH_TRIAL_H_
