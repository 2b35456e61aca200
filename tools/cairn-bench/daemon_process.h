// daemon_process.h: a cairnd of one's own, as a process, with its data and its socket in a folder.
//
// Threads: one. Errors: NOT_FOUND (cairnd does not lie beside this program), UNAVAILABLE.
#ifndef CAIRN_TOOLS_CAIRN_BENCH_DAEMON_PROCESS_H_
#define CAIRN_TOOLS_CAIRN_BENCH_DAEMON_PROCESS_H_

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "cache/client/remote_cache.h"

namespace cairn::bench {

class DaemonProcess {
 public:
  // `flags` beside those for the folder. It may not answer yet: ConnectToDaemon.
  static absl::StatusOr<std::unique_ptr<DaemonProcess>> Start(const std::string& folder,
                                                              std::vector<std::string> flags);
  ~DaemonProcess();  // SIGTERM, and waits for its end
  DaemonProcess(const DaemonProcess&) = delete;

 private:
  DaemonProcess() = default;
  pid_t pid_ = 0;
};

// As soon as it serves, or after a minute its error.
absl::StatusOr<std::unique_ptr<cache::CacheApi>> ConnectToDaemon(
    const std::string& folder, const cache::NamespaceSpec& spec,
    const cache::RemoteCacheOptions& options = {.call_timeout = absl::Seconds(10)});

}  // namespace cairn::bench

#endif  // CAIRN_TOOLS_CAIRN_BENCH_DAEMON_PROCESS_H_
