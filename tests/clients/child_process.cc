#include "tests/clients/child_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace cairn::clients {
namespace {

// A child that says nothing for so long hangs.
constexpr int kSilenceMaxMillis = 60'000;

absl::Status Trouble(const std::string& what) {
  return absl::UnavailableError(absl::StrCat(what, ": ", std::strerror(errno)));
}

}  // namespace

absl::StatusOr<std::unique_ptr<ChildProcess>> ChildProcess::Start(
    const std::vector<std::string>& arguments) {
  std::unique_ptr<ChildProcess> child(new ChildProcess());
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return Trouble("cannot make a pipe");
  child->said_ = store::FileDescriptor(ends[0]);
  const store::FileDescriptor theirs(ends[1]);

  std::vector<char*> words = {const_cast<char*>("client_campaign")};
  for (const std::string& argument : arguments)
    words.push_back(const_cast<char*>(argument.c_str()));
  words.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, theirs.get(), STDOUT_FILENO);
  errno = ::posix_spawn(&child->pid_, "/proc/self/exe", &actions, nullptr, words.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (errno != 0) {
    child->pid_ = 0;
    return Trouble("cannot start a client");
  }
  child->process_ =
      store::FileDescriptor(static_cast<int>(::syscall(SYS_pidfd_open, child->pid_, 0)));
  if (!child->process_.valid()) return Trouble("cannot watch a client");
  return child;
}

ChildProcess::~ChildProcess() {
  if (pid_ == 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

absl::StatusOr<bool> ChildProcess::AwaitDone(size_t count) {
  std::array<char, 256> room;
  while (count > 0) {
    pollfd wait = {said_.get(), POLLIN, 0};
    if (::poll(&wait, 1, kSilenceMaxMillis) <= 0) {
      return absl::UnavailableError("a client says nothing");
    }
    const ssize_t got = ::read(said_.get(), room.data(), std::min(count, room.size()));
    if (got == 0) return false;
    if (got < 0) return Trouble("cannot hear a client");
    count -= static_cast<size_t>(got);
  }
  return true;
}

void ChildProcess::Forget() {
  std::array<char, 256> room;
  pollfd ready = {said_.get(), POLLIN, 0};
  while (::poll(&ready, 1, 0) > 0 && ::read(said_.get(), room.data(), room.size()) > 0) {
  }
}

void ChildProcess::Signal(int signal) {
  // By the descriptor: never another process that got the number.
  ::syscall(SYS_pidfd_send_signal, process_.get(), signal, nullptr, 0);
}

absl::StatusOr<int> ChildProcess::AwaitEnd() {
  pollfd wait = {process_.get(), POLLIN, 0};
  if (::poll(&wait, 1, kSilenceMaxMillis) <= 0) {
    return absl::UnavailableError("a client does not end");
  }
  int status = 0;
  if (::waitpid(pid_, &status, 0) != pid_) return Trouble("cannot wait for a client");
  pid_ = 0;
  return status;
}

void SayDone() {
  const char byte = '.';
  // A parent that is gone has ended the campaign.
  if (::write(STDOUT_FILENO, &byte, 1) != 1) ::_exit(0);
}

}  // namespace cairn::clients
