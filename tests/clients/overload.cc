// More is asked for than can be given (T14 of the plan), by clients that do not wait for answers
// before they ask again: what is given stays near the peak, who is refused learns it at once and
// when to come again, memory stays within its bounds, and afterwards all is as before.
#include <grpcpp/grpcpp.h>
#include <poll.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "cache/client/protocol.h"
#include "cache/client/remote_cache.h"
#include "cache/service/refusal.h"
#include "store/base/clock.h"
#include "store/base/mutex.h"
#include "tests/clients/attack.h"
#include "tests/clients/prefixes.h"
#include "tests/clients/raw_session.h"

namespace cairn::clients {
namespace {

constexpr uint64_t kHostBytes = 512ull << 20;
constexpr uint64_t kDiskBytes = 1536ull << 20;
constexpr size_t kLongBlocks = 128;  // 9 MB a fetch: much work for the daemon, little for who asks
constexpr uint64_t kPrefixes = 130;  // 1.2 GB: most are on disk only
constexpr uint64_t kFirstPrefix = 20'000'000;
constexpr absl::Duration kPatience = absl::Seconds(1);  // of a caller
constexpr uint64_t kInFlightAtPeak = 24;
constexpr int64_t kPhaseNanos = 4'000'000'000;
constexpr std::array<uint64_t, 3> kTimesCapacity = {2, 5, 10};
// What the daemon may have in private memory: its own, gRPC's quota, streamed commits' pool.
constexpr uint64_t kPrivateMax = 1ull << 30;
constexpr absl::Duration kFreeMax = absl::Seconds(20);

int64_t Now() { return RealClock().NowNanos(); }

// Answers of one phase.
struct Tally {
  uint64_t asked = 0, given = 0, refused = 0, late = 0;
  std::vector<int64_t> refusal_nanos;
  absl::Status wrong;
};

// Asks without waiting; answers come on gRPC's threads.
class Asker {
 public:
  Asker(RawSession& session, uint64_t seed) : session_(session), random_(seed) {}
  ~Asker() { AwaitAtMost(0); }

  void Ask() {
    auto* call = new Call();
    call->began = Now();
    call->request = session_.FetchOf(NextPrefix(), kLongBlocks, kPatience);
    call->request.set_lease(random_.Next());
    call->context.set_deadline(
        gpr_time_from_millis(absl::ToInt64Milliseconds(kPatience), GPR_TIMESPAN));
    {
      const MutexLock lock(&mutex_);
      ++tally_.asked;
      ++in_flight_;
    }
    session_.stub().async()->Fetch(
        &call->context, &call->request, &call->answer,
        [this, call](const grpc::Status& status) { Take(std::unique_ptr<Call>(call), status); });
  }
  void AwaitAtMost(uint64_t in_flight) {
    const MutexLock lock(&mutex_);
    mutex_.Await([&] { return in_flight_ <= in_flight; });
  }
  Tally TakeTally() {
    const MutexLock lock(&mutex_);
    return std::exchange(tally_, Tally());
  }

 private:
  struct Call {
    int64_t began = 0;
    grpc::ClientContext context;
    v1::FetchRequest request;
    v1::MappedPrefix answer;
  };
  struct Release {
    grpc::ClientContext context;
    v1::ReleaseRequest request;
    v1::ReleaseResponse answer;
  };

  uint64_t NextPrefix() { return kFirstPrefix + random_.Next() % kPrefixes; }

  void Take(std::unique_ptr<Call> call, const grpc::Status& status) {
    // Late: it may have got one all the same.
    const bool late = status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED;
    if (status.ok() || late) LetGo(call->request.lease());
    const int64_t nanos = Now() - call->began;
    const bool says_when = call->context.GetServerTrailingMetadata().count(cache::kPushbackKey) > 0;
    // It goes before it is counted out: it holds the channel, and who waits for the last one ends
    // that. Ended here, by a callback, the channel would wait for the thread that it is on.
    call.reset();
    const MutexLock lock(&mutex_);
    --in_flight_;
    if (status.ok()) {
      ++tally_.given;
    } else if (status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED) {
      ++tally_.refused;
      tally_.refusal_nanos.push_back(nanos);
      if (!says_when) {
        tally_.wrong.Update(absl::DataLossError("a refusal does not say when to come again: " +
                                                status.error_message()));
      }
    } else if (late) {
      ++tally_.late;
    } else {
      tally_.wrong.Update(cache::FromGrpc(status));
    }
  }

  void LetGo(uint64_t lease) {
    auto* release = new Release();
    release->request = session_.ReleaseOf(lease);
    {
      const MutexLock lock(&mutex_);
      ++in_flight_;
    }
    session_.stub().async()->Release(&release->context, &release->request, &release->answer,
                                     [this, release](const grpc::Status&) {
                                       delete release;
                                       const MutexLock lock(&mutex_);
                                       --in_flight_;
                                     });
  }

  RawSession& session_;
  SeededRandom random_;
  Mutex mutex_;
  Tally tally_ ABSL_GUARDED_BY(mutex_);
  uint64_t in_flight_ ABSL_GUARDED_BY(mutex_) = 0;
};

class OverloadAttack {
 public:
  explicit OverloadAttack(const AttackFlags& flags) : flags_(flags), random_(flags.seed) {}

  absl::StatusOr<AttackResult> Run() {
    CAIRN_ASSIGN_OR_RETURN(target_, Target::Start(flags_, kHostBytes, kDiskBytes));
    CAIRN_RETURN_IF_ERROR(Fill());
    CAIRN_ASSIGN_OR_RETURN(const auto session, RawSession::Open("unix:" + target_->place.socket()));
    Asker asker(*session, random_.Next());
    asker_ = &asker;
    CAIRN_ASSIGN_OR_RETURN(base_, target_->watch->Look());
    const TrialCount count(flags_, 1);
    AttackResult result;
    while (count.More(result.trials)) {
      CAIRN_RETURN_IF_ERROR(Trial(result.counts));
      ++result.trials;
    }
    return result;
  }

 private:
  absl::Status Fill() {
    cache::RemoteCacheOptions options;
    options.commit_timeout = options.call_timeout = options.stall_timeout = absl::Seconds(60);
    CAIRN_ASSIGN_OR_RETURN(const auto cache, cache::ConnectCache("unix:" + target_->place.socket(),
                                                                 ClientsSpec(), options));
    for (uint64_t i = 0; i < kPrefixes; ++i) {
      CAIRN_RETURN_IF_ERROR(
          PutPrefix(*cache, ChainOf(*cache, kFirstPrefix + i, kLongBlocks), /*durable=*/true)
              .status());
    }
    return absl::OkStatus();
  }

  absl::Status Trial(std::map<std::string, uint64_t>& counts) {
    CAIRN_ASSIGN_OR_RETURN(const Tally peak, AtPeak());
    const double per_second = PerSecond(peak.given);
    counts["fetches a second at peak"] = static_cast<uint64_t>(per_second);
    if (peak.given == 0) return absl::UnavailableError("the daemon gives nothing");
    for (const uint64_t times : kTimesCapacity) {
      CAIRN_ASSIGN_OR_RETURN(const Tally tally, OpenLoop(per_second * static_cast<double>(times)));
      std::fprintf(stderr, "%llu x: asked %llu, given %llu, refused %llu, late %llu\n",
                   static_cast<unsigned long long>(times),
                   static_cast<unsigned long long>(tally.asked),
                   static_cast<unsigned long long>(tally.given),
                   static_cast<unsigned long long>(tally.refused),
                   static_cast<unsigned long long>(tally.late));
      const std::string at = absl::StrCat(" at ", times, " x");
      counts["% of peak given" + at] = tally.given * 100 / peak.given;
      counts["refused" + at] = tally.refused;
      counts["late" + at] = tally.late;
      counts["us median of a refusal" + at] =
          static_cast<uint64_t>(QuantileOf(tally.refusal_nanos, 0.5) / 1000);
      counts["us p99 of a refusal" + at] =
          static_cast<uint64_t>(QuantileOf(tally.refusal_nanos, 0.99) / 1000);
    }
    CAIRN_ASSIGN_OR_RETURN(const Held held, target_->watch->Look());
    counts["MB private at most"] = held.private_bytes / 1'000'000;
    if (held.private_bytes > kPrivateMax) {
      return absl::ResourceExhaustedError(
          absl::StrCat("the daemon has ", held.private_bytes, " bytes of private memory"));
    }
    const int64_t over = Now();
    CAIRN_RETURN_IF_ERROR(target_->watch->AwaitNoMoreThan(base_, kFreeMax).status());
    const int64_t nothing_held = Now();
    CAIRN_ASSIGN_OR_RETURN(const Tally after, AtPeak());
    counts["ms until nothing was held"] = static_cast<uint64_t>((nothing_held - over) / 1'000'000);
    counts["% of peak given afterwards"] = after.given * 100 / peak.given;
    return absl::OkStatus();
  }

  static double PerSecond(uint64_t count) {
    return static_cast<double>(count) * 1e9 / static_cast<double>(kPhaseNanos);
  }

  absl::StatusOr<Tally> Ended() {
    Tally tally = asker_->TakeTally();
    // What is given after the time does not count.
    asker_->AwaitAtMost(0);
    const Tally rest = asker_->TakeTally();
    tally.refused += rest.refused;
    tally.late += rest.late;
    tally.wrong.Update(rest.wrong);
    CAIRN_RETURN_IF_ERROR(tally.wrong);
    return tally;
  }

  // As much as can be had: as many are always in flight.
  absl::StatusOr<Tally> AtPeak() {
    for (const int64_t end = Now() + kPhaseNanos; Now() < end;) {
      asker_->AwaitAtMost(kInFlightAtPeak);
      asker_->Ask();
    }
    return Ended();
  }

  // By chance, at that rate, whatever has been answered.
  absl::StatusOr<Tally> OpenLoop(double per_second) {
    double next = static_cast<double>(Now());
    const double end = next + static_cast<double>(kPhaseNanos);
    while (next < end) {
      const double wait = next - static_cast<double>(Now());
      if (wait > 1e6) ::poll(nullptr, 0, static_cast<int>(wait / 1e6));
      asker_->Ask();
      const double uniform = (static_cast<double>(random_.Next() >> 11) + 1) * 0x1p-53;
      next -= std::log(uniform) * 1e9 / per_second;
    }
    return Ended();
  }

  const AttackFlags& flags_;
  SeededRandom random_;
  std::unique_ptr<Target> target_;
  Asker* asker_ = nullptr;
  Held base_;
};

}  // namespace

absl::StatusOr<AttackResult> Overload(const AttackFlags& flags) {
  return OverloadAttack(flags).Run();
}

}  // namespace cairn::clients
