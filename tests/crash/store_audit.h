// store_audit.h: after a crash and a start: is everything as it was promised?
//
// Threads: one caller, nobody else using the daemon. Units: entries, bytes.
// Errors:  DATA_LOSS: a promise is broken; the message says which and where.
#ifndef CAIRN_TESTS_CRASH_STORE_AUDIT_H_
#define CAIRN_TESTS_CRASH_STORE_AUDIT_H_

#include <cstdint>
#include <set>

#include "tests/crash/daemon_process.h"
#include "tests/crash/oracle.h"

namespace cairn::crash {

struct AuditResult {
  std::set<EntryKey> on_disk;
  uint64_t certain = 0;  // acknowledged as durable, not evicted by an operator
  uint64_t missing = 0;  // of these, not there; at most as many as were evicted for room
  uint64_t entries = 0;  // fetched and compared
  uint64_t bytes = 0;
  int64_t first_hit_nanos = 0;  // when, by RealClock(); 0: nothing was found
};

struct AuditOptions {
  uint64_t evicted_max = 0;  // entries that the daemon chose to evict since the oracle last looked
  bool catalog_lost =
      false;  // a rebuild brings evicted entries back, perhaps without their parents
  uint64_t moved_aside_max = 0;  // catalogs kept for people to look at
};

// Reads everything back. What is missing within bounds is forgotten by the oracle.
absl::StatusOr<AuditResult> AuditStore(const DaemonPlace& place, const AuditOptions& options,
                                       Oracle& oracle);

// What lies on disk, by the daemon's own list. Waits until its index is whole.
absl::StatusOr<std::set<EntryKey>> ListDisk(const DaemonPlace& place);

}  // namespace cairn::crash

#endif  // CAIRN_TESTS_CRASH_STORE_AUDIT_H_
