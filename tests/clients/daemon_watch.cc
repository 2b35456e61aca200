#include "tests/clients/daemon_watch.h"

#include <filesystem>
#include <fstream>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "store/base/clock.h"

namespace cairn::clients {
namespace {

constexpr absl::Duration kCallMax = absl::Seconds(30);

// A line of /proc/PID/status: "Threads:\t12", "RssAnon:\t  1234 kB".
uint64_t FieldOf(const std::string& proc, const std::string& name) {
  std::ifstream status(proc + "/status");
  for (std::string word; status >> word;) {
    uint64_t value = 0;
    if (word == name && status >> value) return value;
  }
  return 0;
}

// Sockets and shared memory: what a client can make a daemon open.
absl::StatusOr<uint64_t> ClientDescriptors(const std::string& proc) {
  std::error_code gone;
  uint64_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(proc + "/fd", gone)) {
    std::error_code closed_meanwhile;
    const std::string to = std::filesystem::read_symlink(entry.path(), closed_meanwhile).string();
    count += absl::StartsWith(to, "socket:") || absl::StartsWith(to, "/memfd:");
  }
  if (gone) return absl::UnavailableError("the daemon's process is gone");
  return count;
}

uint64_t SharedMappings(const std::string& proc) {
  uint64_t count = 0;
  std::ifstream maps(proc + "/maps");
  for (std::string line; std::getline(maps, line);) count += absl::StrContains(line, "/memfd:");
  return count;
}

}  // namespace

std::string Held::MoreThan(const Held& base) const {
  std::string more;
  const auto compare = [&](const char* what, uint64_t now, uint64_t then) {
    if (now > then) absl::StrAppend(&more, now, " ", what, " instead of ", then, "; ");
  };
  compare("sessions", sessions, base.sessions);
  compare("leases", leases, base.leases);
  compare("reservations", reservations, base.reservations);
  compare("pinned bytes", pinned_bytes, base.pinned_bytes);
  compare("descriptors", descriptors, base.descriptors);
  compare("shared mappings", shared_mappings, base.shared_mappings);
  return more;
}

DaemonWatch::DaemonWatch(const crash::DaemonPlace& place, pid_t pid)
    : proc_(absl::StrCat("/proc/", pid)), admin_(place.admin_socket(), kCallMax) {}

absl::StatusOr<std::map<std::string, uint64_t>> DaemonWatch::Figures() {
  CAIRN_ASSIGN_OR_RETURN(const v1::StatsResponse stats, admin_.Stats());
  std::map<std::string, uint64_t> figures;
  for (const v1::NamedCount& count : stats.counts()) figures[count.name()] = count.value();
  return figures;
}

absl::StatusOr<Held> DaemonWatch::Look() {
  CAIRN_ASSIGN_OR_RETURN(auto figures, Figures());
  Held held;
  held.sessions = figures["open_sessions"];
  held.leases = figures["open_leases"];
  held.reservations = figures["open_reservations"];
  held.pinned_bytes = figures["host_pinned_bytes"];
  CAIRN_ASSIGN_OR_RETURN(held.descriptors, ClientDescriptors(proc_));
  held.shared_mappings = SharedMappings(proc_);
  held.threads = FieldOf(proc_, "Threads:");
  held.private_bytes = FieldOf(proc_, "RssAnon:") << 10;
  return held;
}

absl::StatusOr<absl::Duration> DaemonWatch::AwaitNoMoreThan(const Held& base, absl::Duration most) {
  const int64_t began = RealClock().NowNanos();
  while (true) {
    CAIRN_ASSIGN_OR_RETURN(const Held held, Look());
    const std::string more = held.MoreThan(base);
    const absl::Duration took = absl::Nanoseconds(RealClock().NowNanos() - began);
    if (more.empty()) return took;
    if (took > most) {
      return absl::DeadlineExceededError(
          absl::StrCat("after ", absl::FormatDuration(took), " the daemon still holds ", more));
    }
  }
}

}  // namespace cairn::clients
