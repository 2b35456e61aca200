// Readers that take a byte a second, nothing at all, or let go of nothing, and clients that are
// stopped (T12 of the plan): what they hold is bounded and is cut off, others put and evict and hit
// as if they were not there.
#include <signal.h>

#include <algorithm>
#include <array>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "cache/client/remote_cache.h"
#include "store/base/clock.h"
#include "tests/clients/attack.h"
#include "tests/clients/prefixes.h"

namespace cairn::clients {
namespace {

constexpr uint64_t kHostBytes = 128ull << 20;
constexpr uint64_t kDiskBytes = 256ull << 20;
constexpr uint64_t kPuts = 200;  // prefixes: four times the arena, twice the disk
// A fetch's deadline (5 s), the bulk port's patience (5 s), and the time in which a stopped client
// is found dead (15 s), on a machine that does much else.
constexpr absl::Duration kCutOffMax = absl::Seconds(60);
constexpr absl::Duration kFreeMax = absl::Seconds(10);

struct Stuck {
  Role role;
  bool stop;  // by SIGSTOP, in the middle; else the role itself gets no further
};
// The first lives and answers: it may keep what it holds as long as any lease lasts.
constexpr std::array<Stuck, 10> kStuck = {{{Role::kHoldForever, false},
                                           {Role::kMatch, true},
                                           {Role::kHold, true},
                                           {Role::kStream, true},
                                           {Role::kBulk, true},
                                           {Role::kPut, true},
                                           {Role::kPutStream, true},
                                           {Role::kStreamUnread, false},
                                           {Role::kBulkByByte, false},
                                           {Role::kBulkUnread, false}}};

class StuckReaders {
 public:
  explicit StuckReaders(const AttackFlags& flags) : flags_(flags), random_(flags.seed) {}

  absl::StatusOr<AttackResult> Run() {
    CAIRN_ASSIGN_OR_RETURN(target_, Target::Start(flags_, kHostBytes, kDiskBytes));
    CAIRN_ASSIGN_OR_RETURN(bystander_, Bystander::Connect(target_->place.socket()));
    cache::RemoteCacheOptions options;
    options.call_timeout = options.commit_timeout = options.stall_timeout = absl::Seconds(30);
    CAIRN_ASSIGN_OR_RETURN(
        writer_, cache::ConnectCache("unix:" + target_->place.socket(), ClientsSpec(), options));
    // Once before anything counts: its staging memory is made, and the disk is full.
    std::vector<int64_t> unused;
    CAIRN_RETURN_IF_ERROR(PutBeside(unused));
    CAIRN_ASSIGN_OR_RETURN(base_, target_->watch->Look());
    const TrialCount count(flags_, 1);
    AttackResult result;
    while (count.More(result.trials / kStuck.size())) {
      CAIRN_RETURN_IF_ERROR(PutBeside(alone_));
      CAIRN_RETURN_IF_ERROR(Trial());
      result.trials += kStuck.size();
      std::fprintf(stderr, "\r%llu stuck", static_cast<unsigned long long>(result.trials));
    }
    std::fprintf(stderr, "\n");
    writer_.reset();
    bystander_.reset();
    CAIRN_RETURN_IF_ERROR(target_->Stop());
    result.counts = {
        {"stuck", result.trials},
        {"MB that they held in memory at most", pinned_most_ / 1'000'000},
        {"MB private at most", private_most_ / 1'000'000},
        {"s until they were cut off, at worst",
         static_cast<uint64_t>(absl::ToInt64Seconds(cut_off_worst_))},
        {"entries put beside them", put_beside_},
        {"us p99 of a bystander, alone with a writer",
         static_cast<uint64_t>(QuantileOf(alone_, 0.99) / 1000)},
        {"us p99, beside them", static_cast<uint64_t>(QuantileOf(beside_, 0.99) / 1000)}};
    return result;
  }

 private:
  // Puts more than either tier holds while the bystander looks on.
  absl::Status PutBeside(std::vector<int64_t>& latencies) {
    bystander_->Begin();
    absl::Status status;
    for (uint64_t i = 0; i < kPuts && status.ok(); ++i) {
      const absl::StatusOr<PutResult> put =
          PutPrefix(*writer_, ChainOf(*writer_, next_put_++), /*durable=*/false);
      status = put.status();
      if (!put.ok()) break;
      put_beside_ += put->committed;
      if (put->refused > 0) {
        status = absl::DataLossError(
            absl::StrCat(put->refused, " entries of a put were refused: eviction is blocked"));
      }
    }
    status.Update(bystander_->End(latencies));
    return status;
  }

  absl::Status Trial() {
    CAIRN_RETURN_IF_ERROR(target_->PutKnown());
    Held cut_off;  // what is held when all but the first have been
    std::vector<std::unique_ptr<ChildProcess>> clients;
    for (const Stuck& stuck : kStuck) {
      CAIRN_ASSIGN_OR_RETURN(auto client, target_->StartClient(stuck.role, random_.Next()));
      CAIRN_ASSIGN_OR_RETURN(const bool lives, client->AwaitDone(stuck.stop ? 2 : 1));
      if (!lives) {
        return absl::DataLossError(
            absl::StrCat("the client ", std::string(NameOf(stuck.role)), " ended"));
      }
      if (stuck.stop) client->Signal(SIGSTOP);
      clients.push_back(std::move(client));
      if (clients.size() == 1) {
        CAIRN_ASSIGN_OR_RETURN(cut_off, target_->watch->Look());
      }
    }
    put_beside_ = 0;
    CAIRN_ASSIGN_OR_RETURN(const Held held, target_->watch->Look());
    pinned_most_ = std::max(pinned_most_, held.pinned_bytes);
    private_most_ = std::max(private_most_, held.private_bytes);
    CAIRN_RETURN_IF_ERROR(PutBeside(beside_));

    cut_off.sessions += kLiveSessions;
    cut_off.descriptors += kLiveSessions;
    CAIRN_ASSIGN_OR_RETURN(const absl::Duration took,
                           target_->watch->AwaitNoMoreThan(cut_off, kCutOffMax));
    cut_off_worst_ = std::max(cut_off_worst_, took);

    clients.clear();
    return target_->watch->AwaitNoMoreThan(base_, kFreeMax).status();
  }

  // Clients whose transfer was cut off, and whose session lives: its connection answers pings.
  static constexpr uint64_t kLiveSessions = 3;

  const AttackFlags& flags_;
  SeededRandom random_;
  std::unique_ptr<Target> target_;
  std::unique_ptr<Bystander> bystander_;
  std::unique_ptr<cache::CacheApi> writer_;
  Held base_;
  uint64_t next_put_ = 10'000'000, put_beside_ = 0;
  uint64_t pinned_most_ = 0, private_most_ = 0;
  absl::Duration cut_off_worst_;
  std::vector<int64_t> alone_, beside_;
};

}  // namespace

absl::StatusOr<AttackResult> StickReaders(const AttackFlags& flags) {
  return StuckReaders(flags).Run();
}

}  // namespace cairn::clients
