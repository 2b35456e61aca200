// daemon.h: cairnd's life: open the directory, take the arena, recover, serve, and on a signal
// stop, flush and end.
//
// Threads: called once from main.
// Errors:  Run says what was wrong in one line on stderr and returns the exit status of it
// (store/base/exit_codes.h).
#ifndef CAIRN_CACHE_DAEMON_DAEMON_H_
#define CAIRN_CACHE_DAEMON_DAEMON_H_

#include "cache/daemon/options.h"

namespace cairn::cache {

inline constexpr char kDaemonVersion[] = "0.1.0";

// Serves until SIGTERM or SIGINT.
int RunDaemon(const DaemonSettings& settings);

// `cairnd --check`: looks the data directory over without changing it; a line a finding.
int RunCheck(const DaemonSettings& settings);

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_DAEMON_DAEMON_H_
