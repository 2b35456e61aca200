#include "tests/crash/daemon_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <cerrno>
#include <cstring>
#include <new>

#include "absl/strings/str_cat.h"

namespace cairn::crash {
namespace {

constexpr int kServingMaxMillis = 60'000;

absl::Status Trouble(const std::string& what) {
  return absl::UnavailableError(absl::StrCat(what, ": ", std::strerror(errno)));
}

// The child gets `board` under its fixed number, and nothing else of ours.
absl::StatusOr<pid_t> Spawn(const std::vector<std::string>& command, const std::string& log,
                            int board, const std::string& notify_socket) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, log.c_str(),
                                   O_WRONLY | O_CREAT | O_APPEND, 0600);
  posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
  if (board >= 0) posix_spawn_file_actions_adddup2(&actions, board, kFaultBoardDescriptor);

  std::vector<char*> arguments, environment;
  for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  for (char** variable = environ; *variable != nullptr; ++variable)
    environment.push_back(*variable);
  std::string notify = "NOTIFY_SOCKET=" + notify_socket;
  environment.push_back(notify.data());
  environment.push_back(nullptr);

  pid_t pid = 0;
  const int error =
      ::posix_spawn(&pid, arguments[0], &actions, nullptr, arguments.data(), environment.data());
  posix_spawn_file_actions_destroy(&actions);
  if (error == 0) return pid;
  return absl::UnavailableError(
      absl::StrCat("cannot start ", command[0], ": ", std::strerror(error)));
}

std::vector<std::string> DaemonCommand(const DaemonPlace& place) {
  std::vector<std::string> command = {place.program,
                                      "--dir",
                                      place.data(),
                                      "--socket",
                                      place.socket(),
                                      "--admin-socket",
                                      place.admin_socket(),
                                      "--host-bytes",
                                      absl::StrCat(place.host_bytes),
                                      "--disk-bytes",
                                      absl::StrCat(place.disk_bytes),
                                      "--segment-bytes",
                                      place.segment_bytes,
                                      "--policy",
                                      "full",
                                      "--scrub-rate",
                                      place.scrub_rate,
                                      "--log-level",
                                      "warn"};
  command.insert(command.end(), place.more_flags.begin(), place.more_flags.end());
  return command;
}

DaemonEnd EndOf(int status) {
  if (WIFSIGNALED(status)) return {.signal = WTERMSIG(status)};
  return {.exit_code = WEXITSTATUS(status)};
}

}  // namespace

std::string DaemonEnd::ToString() const {
  return signal != 0 ? absl::StrCat("ended by signal ", signal)
                     : absl::StrCat("ended with status ", exit_code);
}

absl::StatusOr<std::unique_ptr<DaemonProcess>> DaemonProcess::Start(const DaemonPlace& place,
                                                                    std::optional<FaultArm> arm) {
  std::unique_ptr<DaemonProcess> daemon(new DaemonProcess());
  daemon->board_file_ = store::FileDescriptor(::memfd_create("cairn-fault-board", MFD_CLOEXEC));
  if (!daemon->board_file_.valid() ||
      ::ftruncate(daemon->board_file_.get(), sizeof(FaultBoard)) != 0) {
    return Trouble("cannot make a fault board");
  }
  void* mapped = ::mmap(nullptr, sizeof(FaultBoard), PROT_READ | PROT_WRITE, MAP_SHARED,
                        daemon->board_file_.get(), 0);
  if (mapped == MAP_FAILED) return Trouble("cannot map a fault board");
  daemon->board_ = new (mapped) FaultBoard();
  if (arm.has_value()) daemon->Arm(*arm);

  const std::string path = place.work + "/notify.sock";
  ::unlink(path.c_str());
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is too long for a socket"));
  }
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  daemon->notify_ = store::FileDescriptor(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (::bind(daemon->notify_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) !=
      0) {
    return Trouble("cannot bind " + path);
  }
  CAIRN_ASSIGN_OR_RETURN(daemon->pid_,
                         Spawn(DaemonCommand(place), place.log(), daemon->board_file_.get(), path));
  daemon->process_ =
      store::FileDescriptor(static_cast<int>(::syscall(SYS_pidfd_open, daemon->pid_, 0)));
  if (!daemon->process_.valid()) return Trouble("cannot watch the daemon");
  return daemon;
}

DaemonProcess::~DaemonProcess() {
  if (pid_ != 0 && !ended_) {
    Kill();
    ::waitpid(pid_, nullptr, 0);
  }
  if (board_ != nullptr) ::munmap(board_, sizeof(FaultBoard));
}

void DaemonProcess::Arm(const FaultArm& arm) {
  board_->hits_left = arm.hits;
  board_->armed = static_cast<uint32_t>(arm.point);
}

absl::StatusOr<bool> DaemonProcess::AwaitServing() {
  pollfd waits[] = {{notify_.get(), POLLIN, 0}, {process_.get(), POLLIN, 0}};
  const int ready = ::poll(waits, 2, kServingMaxMillis);
  if (ready <= 0) return absl::UnavailableError("the daemon neither serves nor ends");
  return (waits[0].revents & POLLIN) != 0;
}

void DaemonProcess::Kill() {
  // By the descriptor: never another process that got the number.
  ::syscall(SYS_pidfd_send_signal, process_.get(), SIGKILL, nullptr, 0);
}

void DaemonProcess::Terminate() {
  ::syscall(SYS_pidfd_send_signal, process_.get(), SIGTERM, nullptr, 0);
}

absl::StatusOr<DaemonEnd> DaemonProcess::AwaitEnd(absl::Duration timeout) {
  pollfd wait = {process_.get(), POLLIN, 0};
  if (::poll(&wait, 1, static_cast<int>(absl::ToInt64Milliseconds(timeout))) <= 0) {
    return absl::UnavailableError("the daemon does not end");
  }
  int status = 0;
  if (::waitpid(pid_, &status, 0) != pid_) return Trouble("cannot wait for the daemon");
  ended_ = true;
  return EndOf(status);
}

absl::StatusOr<DaemonEnd> RunProgram(const std::vector<std::string>& command,
                                     const std::string& log) {
  CAIRN_ASSIGN_OR_RETURN(const pid_t pid, Spawn(command, log, -1, ""));
  int status = 0;
  if (::waitpid(pid, &status, 0) != pid) return Trouble("cannot wait for " + command[0]);
  return EndOf(status);
}

absl::StatusOr<DaemonEnd> CheckDirectory(const DaemonPlace& place) {
  std::vector<std::string> command = DaemonCommand(place);
  command.push_back("--check");
  return RunProgram(command, place.log());
}

}  // namespace cairn::crash
