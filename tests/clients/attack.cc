#include "tests/clients/attack.h"

#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cache/client/remote_cache.h"
#include "store/base/clock.h"
#include "store/device/byte_stream.h"
#include "tests/clients/prefixes.h"

namespace cairn::clients {
namespace {

constexpr int64_t kNanosPerSecond = 1'000'000'000;

// A port that nobody listens on; somebody may before the daemon does, which then says so.
absl::StatusOr<std::string> FreeAddress() {
  CAIRN_ASSIGN_OR_RETURN(const auto listener, store::TcpStreams().Listen("127.0.0.1:0"));
  return absl::StrCat("127.0.0.1:", listener->port());
}

}  // namespace

absl::Status Target::PutKnown() const {
  cache::RemoteCacheOptions options;
  options.connect_timeout = options.call_timeout = options.commit_timeout = options.stall_timeout =
      absl::Seconds(60);
  CAIRN_ASSIGN_OR_RETURN(const auto cache,
                         cache::ConnectCache("unix:" + place.socket(), ClientsSpec(), options));
  for (uint64_t number = 0; number < kKnownPrefixes; ++number) {
    CAIRN_RETURN_IF_ERROR(PutPrefix(*cache, ChainOf(*cache, number), /*durable=*/true).status());
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Target>> Target::Start(const AttackFlags& flags, uint64_t host_bytes,
                                                      uint64_t disk_bytes) {
  auto target = std::make_unique<Target>();
  CAIRN_ASSIGN_OR_RETURN(target->tcp, FreeAddress());
  CAIRN_ASSIGN_OR_RETURN(const std::string bulk, FreeAddress());
  target->place = {.program = flags.daemon,
                   .work = flags.work,
                   .host_bytes = host_bytes,
                   .disk_bytes = disk_bytes,
                   .segment_bytes = "16MiB",
                   .scrub_rate = "auto",
                   .more_flags = {"--listen", target->tcp, "--bulk-listen", bulk}};
  std::filesystem::create_directories(target->place.data());
  CAIRN_ASSIGN_OR_RETURN(target->process, crash::DaemonProcess::Start(target->place, std::nullopt));
  CAIRN_ASSIGN_OR_RETURN(const bool serves, target->process->AwaitServing());
  if (!serves) return absl::UnavailableError("the daemon did not start: " + target->place.log());
  target->watch = std::make_unique<DaemonWatch>(target->place, target->process->pid());
  CAIRN_RETURN_IF_ERROR(target->PutKnown());
  return target;
}

absl::StatusOr<std::unique_ptr<ChildProcess>> Target::StartClient(Role role, uint64_t seed) const {
  const ClientFlags client{std::string(NameOf(role)), place.socket(), tcp, seed};
  return ChildProcess::Start(client.ToArguments());
}

absl::Status Target::Stop() {
  process->Terminate();
  CAIRN_ASSIGN_OR_RETURN(const crash::DaemonEnd end, process->AwaitEnd());
  if (end.signal == 0 && end.exit_code == 0) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("the daemon ", end.ToString(), ": ", place.log()));
}

TrialCount::TrialCount(const AttackFlags& flags, uint64_t small)
    : trials_(flags.trials == 0 ? small : flags.trials),
      end_nanos_(flags.seconds == 0 ? 0
                                    : RealClock().NowNanos() +
                                          static_cast<int64_t>(flags.seconds) * kNanosPerSecond) {}

bool TrialCount::More(uint64_t done) const {
  return end_nanos_ == 0 ? done < trials_ : RealClock().NowNanos() < end_nanos_;
}

}  // namespace cairn::clients
