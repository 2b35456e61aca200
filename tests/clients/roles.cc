#include "tests/clients/roles.h"

#include <poll.h>
#include <signal.h>

#include <algorithm>
#include <csignal>
#include <deque>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cache/client/bulk_protocol.h"
#include "cache/client/protocol.h"
#include "cache/client/remote_cache.h"
#include "cairn/v1/cache.grpc.pb.h"
#include "store/base/random.h"
#include "store/device/byte_stream.h"
#include "tests/clients/child_process.h"
#include "tests/clients/prefixes.h"
#include "tests/clients/raw_session.h"

namespace cairn::clients {
namespace {

constexpr absl::Duration kCallMax = absl::Seconds(30);
constexpr absl::Duration kStuckFetchMax = absl::Seconds(5);
constexpr size_t kHeldMax = 6;
constexpr uint64_t kSharedFlight = 1'000'000;  // what all that wait wait for

volatile std::sig_atomic_t stop_asked = 0;

class Client {
 public:
  explicit Client(const ClientFlags& flags) : flags_(flags), random_(flags.seed) {}

  absl::Status Run(Role role) {
    while (stop_asked == 0) {
      CAIRN_RETURN_IF_ERROR(One(role));
      SayDone();
    }
    return absl::OkStatus();
  }

 private:
  absl::Status One(Role role) {
    switch (role) {
      case Role::kMatch:
        return Match();
      case Role::kHold:
        return Fetch(/*same_host=*/true, {}, kHeldMax);
      case Role::kStream:
        return Fetch(/*same_host=*/false, {.bulk = false}, 0);
      case Role::kBulk:
        return Fetch(/*same_host=*/false, {}, 0);
      case Role::kPut:
        return Put(/*same_host=*/true);
      case Role::kPutStream:
        return Put(/*same_host=*/false);
      case Role::kWait:
        return Wait();
      case Role::kSession:
        cache_.reset();
        return Connect(/*same_host=*/true, {});
      case Role::kHoldForever:
        return HoldForever();
      case Role::kStreamUnread:
        return StreamUnread();
      case Role::kBulkByByte:
        return TakeBulk(/*byte_by_byte=*/true);
      case Role::kBulkUnread:
        return TakeBulk(/*byte_by_byte=*/false);
    }
    return absl::OkStatus();
  }

  absl::Status Connect(bool same_host, cache::RemoteCacheOptions options) {
    if (cache_ != nullptr) return absl::OkStatus();
    options.connect_timeout = options.call_timeout = options.commit_timeout =
        options.stall_timeout = kCallMax;
    CAIRN_ASSIGN_OR_RETURN(
        cache_, cache::ConnectCache(same_host ? "unix:" + flags_.socket : flags_.tcp, ClientsSpec(),
                                    options));
    return absl::OkStatus();
  }

  // One of those that every client knows.
  std::vector<Digest> KnownChain() { return ChainOf(*cache_, random_.Next() % kKnownPrefixes); }

  absl::Status Match() {
    CAIRN_RETURN_IF_ERROR(Connect(true, {}));
    CAIRN_ASSIGN_OR_RETURN(const cache::MatchResult found,
                           cache_->Match(KnownChain(), {.lease_host = true}));
    if (found.leased == nullptr) return absl::OkStatus();
    return CheckPrefix(*found.leased);
  }

  absl::Status Fetch(bool same_host, const cache::RemoteCacheOptions& options, size_t keep) {
    CAIRN_RETURN_IF_ERROR(Connect(same_host, options));
    auto fetched = cache_->Fetch({.chain = KnownChain()});
    if (absl::IsResourceExhausted(fetched.status())) return absl::OkStatus();  // busy, or full
    CAIRN_RETURN_IF_ERROR(fetched.status());
    CAIRN_RETURN_IF_ERROR(CheckPrefix(**fetched));
    held_.push_back(*std::move(fetched));
    while (held_.size() > keep) held_.pop_front();
    return absl::OkStatus();
  }

  absl::Status Put(bool same_host) {
    CAIRN_RETURN_IF_ERROR(Connect(same_host, {}));
    const std::vector<Digest> chain = ChainOf(*cache_, kKnownPrefixes + random_.Next() % 100'000);
    return PutPrefix(*cache_, chain, /*durable=*/random_.Next() % 4 == 0).status();
  }

  // The first to come is the maker and never makes it; whoever is next becomes it when that one
  // dies.
  absl::Status Wait() {
    CAIRN_RETURN_IF_ERROR(Connect(true, {}));
    const std::vector<Digest> chain = ChainOf(*cache_, kSharedFlight);
    const std::vector<cache::ReserveItem> items = ItemsOf(*cache_, chain);
    SayDone();
    return cache_->Reserve(items, absl::Milliseconds(50)).status();
  }

  absl::Status HoldForever() {
    CAIRN_RETURN_IF_ERROR(Connect(true, {}));
    for (uint64_t number = 0; number < kKnownPrefixes; ++number) {
      auto fetched = cache_->Fetch({.chain = ChainOf(*cache_, number)});
      if (absl::IsResourceExhausted(fetched.status())) break;
      CAIRN_RETURN_IF_ERROR(fetched.status());
      held_.push_back(*std::move(fetched));
    }
    return Rest();
  }

  absl::Status StreamUnread() {
    CAIRN_ASSIGN_OR_RETURN(const auto session, RawSession::Open(flags_.tcp));
    const v1::FetchRequest request = session->FetchOf(0, kBlocks, kStuckFetchMax);
    grpc::ClientContext context;
    context.set_deadline(
        gpr_time_from_millis(absl::ToInt64Milliseconds(kStuckFetchMax), GPR_TIMESPAN));
    const auto reader = session->stub().FetchStream(&context, request);
    v1::FetchChunk head;
    if (!reader->Read(&head)) return cache::FromGrpc(reader->Finish());
    return Rest();
  }

  absl::Status TakeBulk(bool byte_by_byte) {
    CAIRN_ASSIGN_OR_RETURN(const auto session, RawSession::Open(flags_.tcp));
    CAIRN_ASSIGN_OR_RETURN(const auto stream, session->BeginBulk(0, kStuckFetchMax));
    SayDone();
    std::array<uint8_t, 1> byte;
    // One a second, until the daemon has had enough.
    while (byte_by_byte && stop_asked == 0 && stream->Receive(byte, kCallMax).ok()) {
      ::poll(nullptr, 0, 1000);
    }
    return Rest();
  }

  static absl::Status Rest() {
    SayDone();
    while (stop_asked == 0) ::poll(nullptr, 0, 60'000);
    return absl::OkStatus();
  }

  const ClientFlags& flags_;
  SeededRandom random_;
  std::unique_ptr<cache::CacheApi> cache_;
  std::deque<std::unique_ptr<cache::FetchedPrefix>> held_;
};

}  // namespace

std::vector<std::string> ClientFlags::ToArguments() const {
  return {"--role", role, "--socket", socket, "--tcp", tcp, "--seed", absl::StrCat(seed)};
}

absl::Status RunRole(const ClientFlags& flags) {
  const auto* const role = std::ranges::find(kRoleNames, flags.role);
  if (role == kRoleNames.end()) {
    return absl::InvalidArgumentError(absl::StrCat("--role: no role ", flags.role));
  }
  struct sigaction action = {};
  action.sa_handler = [](int) { stop_asked = 1; };  // and poll is interrupted
  ::sigaction(SIGTERM, &action, nullptr);
  return Client(flags).Run(static_cast<Role>(role - kRoleNames.begin()));
}

}  // namespace cairn::clients
