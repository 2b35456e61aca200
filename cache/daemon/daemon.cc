#include "cache/daemon/daemon.h"

#include <pthread.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "cache/core/cache_core.h"
#include "cache/daemon/notify.h"
#include "cache/daemon/secrets.h"
#include "cache/service/cache_server.h"
#include "store/base/exit_codes.h"
#include "store/base/fault_point.h"
#include "store/device/gpu_memory.h"
#include "store/device/tls_stream.h"
#include "store/device/uring_file_system.h"
#include "store/index/rocks_catalog.h"
#include "store/recovery/check.h"
#include "store/tier/disk_tier.h"
#include "store/tier/gpu_tier.h"
#include "store/tier/host_tier.h"

namespace cairn::cache {
namespace {

constexpr absl::Duration kStopMax = absl::Seconds(30);

int Fail(const absl::Status& status, int exit_code) {
  const std::string message(status.message());
  std::fprintf(stderr, "cairnd: %s\n", message.c_str());
  return exit_code;
}

// What kept the data directory from opening.
int OpenExitCode(const absl::Status& status) {
  if (absl::IsResourceExhausted(status)) return kExitDiskFull;
  if (!absl::IsFailedPrecondition(status)) return kExitFailure;
  return absl::StrContains(status.message(), "format version") ? kExitBadFormat
                                                               : kExitDirectoryInUse;
}

absl::Status MakeDirectory(const std::string& path) {
  if (::mkdir(path.c_str(), 0700) == 0 || errno == EEXIST) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat("cannot make the directory ", path, ": ", std::strerror(errno)));
}

std::string ParentOf(const std::string& path) {
  const size_t slash = path.find_last_of('/');
  return slash == std::string::npos || slash == 0 ? "." : path.substr(0, slash);
}

void SayRecovery(const store::RecoveryReport& report) {
  if (report.catalog_rebuilt) {
    spdlog::warn("the catalog was rebuilt from the segments: {}", report.catalog_trouble);
  }
  if (report.damaged_segments + report.dropped_entries + report.truncated_tail_bytes > 0) {
    spdlog::warn(
        "recovery: {} damaged segments, {} entries dropped, {} bytes of unacknowledged tails cut "
        "off",
        report.damaged_segments, report.dropped_entries, report.truncated_tail_bytes);
  }
}

absl::StatusOr<CacheCore::Options> CoreOptions(const DaemonSettings& settings) {
  CacheCore::Options options;
  options.policy = settings.policy;
  options.scrub_bytes_per_second = settings.scrub_bytes_per_second;
  CAIRN_ASSIGN_OR_RETURN(options.default_tenant_key,
                         LoadOrMakeKey(settings.dir + "/tenant.key", SystemRandom()));
  if (!settings.tenant_keys.empty()) {
    CAIRN_ASSIGN_OR_RETURN(options.tenant_keys, LoadTenantKeys(settings.tenant_keys));
  }
  return options;
}

// A pool in GPU memory, if one is asked for.
struct GpuPool {
  std::unique_ptr<store::Gpu> gpu;
  std::unique_ptr<store::GpuTier> tier;

  absl::Status Open(uint64_t bytes) {
    if (bytes == 0) return absl::OkStatus();
    CAIRN_ASSIGN_OR_RETURN(gpu, store::OpenGpu());
    CAIRN_ASSIGN_OR_RETURN(tier, store::GpuTier::Create(*gpu, bytes));
    return absl::OkStatus();
  }
};

// Read and found good before anything is opened or taken.
absl::StatusOr<std::optional<store::TlsCredentials>> TlsOf(const DaemonSettings& settings) {
  if (settings.tls_cert.empty()) return std::nullopt;
  CAIRN_ASSIGN_OR_RETURN(
      store::TlsCredentials tls,
      store::ReadTls(settings.tls_cert, settings.tls_key, settings.tls_client_ca));
  CAIRN_RETURN_IF_ERROR(store::TlsListeners(tls).status());
  return tls;
}

// The signals that end the daemon, in this thread and all it starts.
sigset_t BlockEndingSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  return set;
}

}  // namespace

int RunDaemon(const DaemonSettings& settings) {
  spdlog::set_level(spdlog::level::from_str(settings.log_level));
  // gRPC's locks: Debian builds absl with its search for cycles of locks on, a tenth of each call.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  auto tls = TlsOf(settings);
  if (!tls.ok()) return Fail(tls.status(), kExitUsage);
  const sigset_t ending = BlockEndingSignals();
  ::signal(SIGPIPE, SIG_IGN);
  ::umask(0077);
  for (const std::string& path :
       {settings.dir, ParentOf(settings.socket), ParentOf(settings.admin_socket)}) {
    if (const absl::Status status = MakeDirectory(path); !status.ok())
      return Fail(status, kExitFailure);
  }

  store::UringFileSystem files;
  store::RecoveryReport report;
  auto disk = store::DiskTier::Open({.directory = settings.dir,
                                     .capacity_bytes = settings.disk_bytes,
                                     .segment_bytes = settings.segment_bytes},
                                    files, store::MakeRocksCatalog(), RealClock(), &report);
  if (!disk.ok()) return Fail(disk.status(), OpenExitCode(disk.status()));
  CAIRN_FAULT_POINT(kDaemonDiskOpened);
  SayRecovery(report);
  // After the directory's lock is held: a second daemon must not touch the key.
  absl::StatusOr<CacheCore::Options> options = CoreOptions(settings);
  if (!options.ok()) {
    return Fail(options.status(),
                absl::IsUnavailable(options.status()) ? kExitDiskFull : kExitUsage);
  }
  CAIRN_FAULT_POINT(kDaemonKeyLoaded);
  std::atomic<bool> no_memory{false};
  auto host = store::HostTier::Create({.capacity_bytes = settings.host_bytes,
                                       .memory = store::ArenaMemory::kInBackground,
                                       .huge_pages = settings.huge_pages,
                                       .memory_failed = [&no_memory](const absl::Status& status) {
                                         no_memory = true;
                                         spdlog::critical("host memory: {}; give --host-bytes less",
                                                          std::string(status.message()));
                                         ::kill(::getpid(), SIGTERM);
                                       }});
  if (!host.ok()) return Fail(host.status(), kExitBadArena);
  GpuPool pool;
  if (const absl::Status status = pool.Open(settings.gpu_bytes); !status.ok()) {
    return Fail(absl::Status(status.code(), absl::StrCat("--gpu-bytes ", settings.gpu_bytes, ": ",
                                                         status.message())),
                kExitBadArena);
  }
  options->gpu = pool.gpu.get();
  options->gpu_tier = pool.tier.get();
  auto core = CacheCore::Create(*options, **host, disk->get(), RealClock(), SystemRandom());
  if (!core.ok()) return Fail(core.status(), kExitFailure);
  auto server = CacheServer::Start({.socket = settings.socket,
                                    .listen = settings.listen,
                                    .admin_socket = settings.admin_socket,
                                    .bulk_listen = settings.bulk_listen,
                                    .version = kDaemonVersion,
                                    .tls = *std::move(tls)},
                                   **core, RealClock(), SystemRandom(), store::UnixSockets());
  if (!server.ok()) return Fail(server.status(), kExitFailure);
  spdlog::info(
      "cairnd {} serves {}{}{}; {} MiB of host memory{}, {} MiB of GPU memory, {} MiB of disk by "
      "{}, policy {}; {} segments found",
      kDaemonVersion, settings.socket,
      settings.listen.empty()
          ? ""
          : absl::StrCat(" and ", settings.listen, settings.tls_cert.empty() ? "" : " by TLS"),
      (*server)->bulk_port() == 0 ? "" : absl::StrCat(", bulk port ", (*server)->bulk_port()),
      settings.host_bytes >> 20, settings.huge_pages ? " in huge pages" : "",
      settings.gpu_bytes >> 20, settings.disk_bytes >> 20,
      files.uses_uring() ? "io_uring" : "pread", settings.policy.ToString(), report.segments);
  NotifyServiceManager("READY=1");

  CAIRN_FAULT_POINT(kDaemonServing);
  int signal_number = 0;
  sigwait(&ending, &signal_number);
  spdlog::info("{}: no new calls, flushing", strsignal(signal_number));
  NotifyServiceManager("STOPPING=1");
  CAIRN_FAULT_POINT(kShutdownBegun);
  (*server)->Shutdown(kStopMax);
  CAIRN_FAULT_POINT(kShutdownCallsEnded);
  if (const absl::Status status = (*core)->Flush(kStopMax); !status.ok()) {
    spdlog::warn("not everything committed reached the disk: {}", std::string(status.message()));
  }
  CAIRN_FAULT_POINT(kShutdownFlushed);
  return no_memory ? kExitBadArena : kExitOk;
}

int RunCheck(const DaemonSettings& settings) {
  store::UringFileSystem files;
  const std::unique_ptr<store::Catalog> catalog = store::MakeRocksCatalog();
  const absl::StatusOr<store::CheckReport> report =
      store::CheckDirectory(settings.dir, files, *catalog);
  if (!report.ok()) return Fail(report.status(), OpenExitCode(report.status()));
  if (report->catalog_damaged()) {
    std::printf("catalog damaged (a start rebuilds it from the segments): %s\n",
                report->catalog_trouble.c_str());
  }
  for (const auto& segment : report->damaged_segments) {
    std::printf("segment damaged: %s: %s\n", segment.path.c_str(), segment.why.c_str());
  }
  std::printf("%llu segments, %llu entries, %llu damaged entries\n",
              static_cast<unsigned long long>(report->segments),
              static_cast<unsigned long long>(report->entries),
              static_cast<unsigned long long>(report->damaged_entries));
  if (!report->damaged_segments.empty()) return kExitBadSegment;
  if (report->catalog_damaged()) return kExitBadCatalog;
  return report->sound() ? kExitOk : kExitDamageFound;
}

}  // namespace cairn::cache
