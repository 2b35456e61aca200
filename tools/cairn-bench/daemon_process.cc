#include "tools/cairn-bench/daemon_process.h"

#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <thread>

#include "store/base/clock.h"

namespace cairn::bench {
namespace {

constexpr absl::Duration kStartMax = absl::Seconds(60);

absl::StatusOr<std::string> DaemonPath() {
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  const std::filesystem::path path = self.parent_path() / "cairnd";
  if (error || !std::filesystem::exists(path)) {
    return absl::NotFoundError(absl::StrCat(path.string(), " is not there: build cairnd too"));
  }
  return path.string();
}

}  // namespace

absl::StatusOr<std::unique_ptr<DaemonProcess>> DaemonProcess::Start(
    const std::string& folder, std::vector<std::string> flags) {
  CAIRN_ASSIGN_OR_RETURN(const std::string path, DaemonPath());
  std::vector<std::string> words = {path,          "--dir",       folder + "/data",
                                    "--socket",    folder + "/s", "--admin-socket",
                                    folder + "/a", "--log-level", "error"};
  words.insert(words.end(), flags.begin(), flags.end());
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  std::unique_ptr<DaemonProcess> daemon(new DaemonProcess);
  if (::posix_spawn(&daemon->pid_, path.c_str(), nullptr, nullptr, arguments.data(), environ)) {
    return absl::UnavailableError(absl::StrCat("cannot start ", path));
  }
  return daemon;
}

DaemonProcess::~DaemonProcess() {
  if (pid_ == 0) return;
  ::kill(pid_, SIGTERM);
  ::waitpid(pid_, nullptr, 0);
}

absl::StatusOr<std::unique_ptr<cache::CacheApi>> ConnectToDaemon(
    const std::string& folder, const cache::NamespaceSpec& spec,
    const cache::RemoteCacheOptions& options) {
  const int64_t end = RealClock().NowNanos() + absl::ToInt64Nanoseconds(kStartMax);
  while (true) {
    absl::StatusOr<std::unique_ptr<cache::CacheApi>> api =
        cache::ConnectCache("unix:" + folder + "/s", spec, options);
    if (api.ok() || RealClock().NowNanos() > end) return api;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

}  // namespace cairn::bench
