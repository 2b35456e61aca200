// daemon_watch.h: what a daemon holds for its clients, by its own figures and by those of the
// kernel.
//
// Threads: one caller. Units: bytes. Errors: UNAVAILABLE: the daemon or its process is gone.
#ifndef CAIRN_TESTS_CLIENTS_DAEMON_WATCH_H_
#define CAIRN_TESTS_CLIENTS_DAEMON_WATCH_H_

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <string>

#include "absl/time/time.h"
#include "store/base/status.h"
#include "tests/crash/daemon_process.h"
#include "tools/cairnctl/admin_client.h"

namespace cairn::clients {

struct Held {
  uint64_t sessions = 0, leases = 0, reservations = 0, pinned_bytes = 0;
  uint64_t descriptors = 0, shared_mappings = 0;
  uint64_t threads = 0, private_bytes = 0;
  // Names what of it is more than `base` has, without threads and private bytes: pools stay, within
  // their bounds. Empty: nothing.
  std::string MoreThan(const Held& base) const;
};

class DaemonWatch {
 public:
  DaemonWatch(const crash::DaemonPlace& place, pid_t pid);

  absl::StatusOr<Held> Look();
  absl::StatusOr<std::map<std::string, uint64_t>> Figures();
  // Until it holds no more than `base`; how long that took. DEADLINE_EXCEEDED names what it still
  // holds.
  absl::StatusOr<absl::Duration> AwaitNoMoreThan(const Held& base, absl::Duration most);

 private:
  const std::string proc_;
  ctl::AdminClient admin_;
};

}  // namespace cairn::clients

#endif  // CAIRN_TESTS_CLIENTS_DAEMON_WATCH_H_
