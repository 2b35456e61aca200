#include "tools/cairn-bench/serving_child.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>

namespace cairn::bench {

absl::StatusOr<std::unique_ptr<ServingChild>> ServingChild::Start(const std::string& command,
                                                                  const std::string& directory) {
  std::unique_ptr<ServingChild> child(new ServingChild());
  int to[2] = {-1, -1}, from[2] = {-1, -1};
  if (::pipe2(to, O_CLOEXEC) != 0) return absl::UnavailableError("no pipe");
  const store::FileDescriptor to_read(to[0]);
  child->input_ = store::FileDescriptor(to[1]);
  if (::pipe2(from, O_CLOEXEC) != 0) return absl::UnavailableError("no pipe");
  const store::FileDescriptor from_read(from[0]);
  store::FileDescriptor from_write(from[1]);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, to_read.get(), STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, from_write.get(), STDOUT_FILENO);
  const std::array<std::string, 3> words = {"cairn-bench", command, directory};
  std::array<char*, 4> arguments = {const_cast<char*>(words[0].c_str()),
                                    const_cast<char*>(words[1].c_str()),
                                    const_cast<char*>(words[2].c_str()), nullptr};
  const int error =
      ::posix_spawn(&child->child_, "/proc/self/exe", &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return absl::UnavailableError("cannot start this program again");
  from_write.reset();
  char c = 0;
  while (::read(from_read.get(), &c, 1) == 1 && c != '\n') child->said_ += c;
  if (c == '\n') return child;
  return absl::UnavailableError(absl::StrCat("cairn-bench ", command, " did not start"));
}

ServingChild::~ServingChild() {
  input_.reset();
  if (child_ > 0) ::waitpid(child_, nullptr, 0);
}

void ServingChild::ServeUntilLetGo(const std::string& line) {
  std::printf("%s\n", line.c_str());
  std::fflush(stdout);
  char ignored = 0;
  while (::read(STDIN_FILENO, &ignored, 1) > 0) {
  }
  std::_Exit(0);
}

}  // namespace cairn::bench
