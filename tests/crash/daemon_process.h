// daemon_process.h: a real cairnd in a process of its own, on a board of fault points that survives
// it.
//
// Threads:   one owner; Kill from any thread.
// Ownership: the process is killed and waited for when its object goes.
// Errors:    UNAVAILABLE: it could not be started, or did not answer in time (a hang; its log says
//            where).
#ifndef CAIRN_TESTS_CRASH_DAEMON_PROCESS_H_
#define CAIRN_TESTS_CRASH_DAEMON_PROCESS_H_

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "store/base/fault_point.h"
#include "store/base/status.h"
#include "store/device/file_descriptor.h"
#include "store/device/shared_memory.h"

namespace cairn::crash {

inline constexpr uint64_t kDiskBytes = 4 << 20;  // segments of 128 KiB
inline constexpr uint64_t kHostBytes = 1 << 20;

// Where a daemon of the campaign lives: <work>/data, <work>/cairn.sock, <work>/cairnd.log.
struct DaemonPlace {
  std::string program;  // cairnd; fault points need one that was built with them
  std::string work;
  uint64_t host_bytes = kHostBytes;
  uint64_t disk_bytes = kDiskBytes;
  std::string segment_bytes = "1MiB";
  std::string scrub_rate = "100MB/s";
  std::vector<std::string> more_flags = {};
  std::string data() const { return work + "/data"; }
  std::string socket() const { return work + "/cairn.sock"; }
  std::string admin_socket() const { return work + "/admin.sock"; }
  std::string log() const { return work + "/cairnd.log"; }
};

// How a process ended.
struct DaemonEnd {
  int signal = 0;  // 0: it exited
  int exit_code = 0;
  std::string ToString() const;
};

// SIGKILL at the hits-th hit of a point.
struct FaultArm {
  FaultPoint point = FaultPoint::kReserveMade;
  uint64_t hits = 1;
};

class DaemonProcess {
 public:
  // `arm`: before its first instruction.
  static absl::StatusOr<std::unique_ptr<DaemonProcess>> Start(const DaemonPlace& place,
                                                              std::optional<FaultArm> arm);
  ~DaemonProcess();
  DaemonProcess(const DaemonProcess&) = delete;

  void Arm(const FaultArm& arm);  // counted from now on
  uint64_t hits(FaultPoint point) const { return board_->hits[static_cast<size_t>(point)]; }

  // True: it serves. False: it ended before.
  absl::StatusOr<bool> AwaitServing();
  pid_t pid() const { return pid_; }
  void Kill();
  void Terminate();
  absl::StatusOr<DaemonEnd> AwaitEnd(absl::Duration timeout = absl::Seconds(60));

 private:
  DaemonProcess() = default;

  store::FileDescriptor board_file_;
  FaultBoard* board_ = nullptr;
  store::FileDescriptor notify_;  // where it says that it serves
  store::FileDescriptor process_;
  pid_t pid_ = 0;
  bool ended_ = false;
};

// Runs `program arguments...` to its end, output into the log.
absl::StatusOr<DaemonEnd> RunProgram(const std::vector<std::string>& command,
                                     const std::string& log);
// The daemon's own offline check of the directory.
absl::StatusOr<DaemonEnd> CheckDirectory(const DaemonPlace& place);

}  // namespace cairn::crash

#endif  // CAIRN_TESTS_CRASH_DAEMON_PROCESS_H_
