// A hit in host memory on the same host, by one call, beside the barest call there is; and how long
// a match of a million tokens takes.
#include <grpcpp/grpcpp.h>

#include <algorithm>

#include "cairn/v1/cache.grpc.pb.h"
#include "store/base/clock.h"
#include "tools/cairn-bench/benches.h"
#include "tools/cairn-bench/flash_layout.h"
#include "tools/cairn-bench/host_fixture.h"

namespace cairn::bench {
namespace {

constexpr size_t kHitCalls = 1000;
constexpr size_t kMatchBlocks = 8192;
constexpr size_t kMatchCalls = 200;

// Answers one call with nothing, as our service answers what needs only the index.
class EmptyService final : public v1::Cache::CallbackService {
 public:
  grpc::ServerUnaryReactor* Release(grpc::CallbackServerContext* context, const v1::ReleaseRequest*,
                                    v1::ReleaseResponse*) override {
    grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }
};

class BareServer {
 public:
  explicit BareServer(const std::string& directory) {
    const std::string target = "unix:" + directory + "/bare.sock";
    grpc::ServerBuilder builder;
    builder.AddListeningPort(target, grpc::InsecureServerCredentials());
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    stub_ = v1::Cache::NewStub(
        grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(), arguments));
  }
  ~BareServer() {
    if (server_ != nullptr) server_->Shutdown();
  }
  absl::Status Call() {
    grpc::ClientContext context;
    context.set_deadline(gpr_time_from_seconds(10, GPR_TIMESPAN));
    v1::ReleaseResponse answer;
    const grpc::Status status = stub_->Release(&context, v1::ReleaseRequest(), &answer);
    return status.ok() ? absl::OkStatus() : absl::UnavailableError(status.error_message());
  }

 private:
  EmptyService service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<v1::Cache::Stub> stub_;
};

constexpr double kMedian = 0.5;

// Of the timed calls, in microseconds. Before each, `between` runs untimed.
template <typename Between, typename Timed>
absl::StatusOr<double> QuantileMicros(double quantile, size_t calls, Between between, Timed timed) {
  std::vector<int64_t> nanos(calls);
  for (int64_t& took : nanos) {
    CAIRN_RETURN_IF_ERROR(between());
    const int64_t start = RealClock().NowNanos();
    CAIRN_RETURN_IF_ERROR(timed());
    took = RealClock().NowNanos() - start;
  }
  const auto at =
      nanos.begin() + static_cast<std::ptrdiff_t>(quantile * static_cast<double>(calls));
  std::nth_element(nanos.begin(), at, nanos.end());
  return static_cast<double>(*at) * 1e-3;
}

struct HitRig {
  double quantile = kMedian;
  std::unique_ptr<HostFixture> host;
  std::unique_ptr<cache::CacheApi> cache;
  std::unique_ptr<BareServer> bare;
  std::vector<Digest> chain;
  cache::MatchResult hit;

  absl::StatusOr<double> Limit() {
    return QuantileMicros(
        quantile, kHitCalls, [this] { return bare->Call(); }, [this] { return bare->Call(); });
  }
  absl::StatusOr<double> Ours() {
    // The lease goes by a call in the background, which is over before the next hit is timed.
    const auto let_go = [this]() -> absl::Status {
      hit.leased.reset();
      for (uint64_t open = 1; open != 0;) {
        CAIRN_ASSIGN_OR_RETURN(const std::vector<cache::NamedCount> counts, cache->Stats());
        for (const cache::NamedCount& count : counts) {
          if (count.name == "open_leases") open = count.value;
        }
      }
      return absl::OkStatus();
    };
    return QuantileMicros(quantile, kHitCalls, let_go, [this] {
      absl::StatusOr<cache::MatchResult> match = cache->Match(chain, {.lease_host = true});
      CAIRN_RETURN_IF_ERROR(match.status());
      hit = *std::move(match);
      if (hit.leased != nullptr && hit.leased->rows.size() == chain.size()) return absl::OkStatus();
      return absl::InternalError("not a hit");
    });
  }
};

absl::StatusOr<Prepared> PrepareHit(const BenchContext& context, size_t blocks, double quantile) {
  auto rig = std::make_shared<HitRig>();
  rig->quantile = quantile;
  CAIRN_ASSIGN_OR_RETURN(rig->host, HostFixture::Make(FlashLayout(), blocks));
  CAIRN_RETURN_IF_ERROR(rig->host->Serve(context.directory));
  CAIRN_ASSIGN_OR_RETURN(rig->cache, rig->host->Connect());
  rig->chain = ChainOf(*rig->cache, blocks, 1);
  CAIRN_RETURN_IF_ERROR(PutPrefix(*rig->cache, rig->host->layout(), rig->chain));
  rig->bare = std::make_unique<BareServer>(context.directory);
  CAIRN_RETURN_IF_ERROR(rig->bare->Call());
  return Prepared{
      {{"gRPC unary call of empty messages, unix", Role::kLimit, [rig] { return rig->Limit(); }},
       {"match, lease, mapped entries", Role::kOurs, [rig] { return rig->Ours(); }}},
      {}};
}

// What of a hit is the cache's own work: the same without the call.
absl::StatusOr<Prepared> PrepareHitInProcess(size_t blocks) {
  auto rig = std::make_shared<HitRig>();
  CAIRN_ASSIGN_OR_RETURN(rig->host, HostFixture::Make(FlashLayout(), blocks));
  CAIRN_ASSIGN_OR_RETURN(rig->cache, rig->host->OpenLocal());
  rig->chain = ChainOf(*rig->cache, blocks, 1);
  CAIRN_RETURN_IF_ERROR(PutPrefix(*rig->cache, rig->host->layout(), rig->chain));
  return Prepared{
      {{"match, lease, entries in process", Role::kOurs, [rig] { return rig->Ours(); }}}, {}};
}

struct MatchRig {
  std::unique_ptr<HostFixture> host;
  std::unique_ptr<cache::CacheApi> cache;
  std::vector<Digest> chain;

  absl::StatusOr<double> Millis() {
    CAIRN_ASSIGN_OR_RETURN(const double micros,
                           QuantileMicros(
                               kMedian, kMatchCalls, [] { return absl::OkStatus(); },
                               [this] {
                                 absl::StatusOr<cache::MatchResult> match = cache->Match(chain);
                                 CAIRN_RETURN_IF_ERROR(match.status());
                                 if (match->rows_blocks == chain.size()) return absl::OkStatus();
                                 return absl::InternalError("not all of the chain was found");
                               }));
    return micros * 1e-3;
  }
};

absl::StatusOr<Prepared> PrepareMatch(const BenchContext& context, bool by_call) {
  auto rig = std::make_shared<MatchRig>();
  CAIRN_ASSIGN_OR_RETURN(rig->host, HostFixture::Make(SmallLayout(), kMatchBlocks));
  CAIRN_ASSIGN_OR_RETURN(rig->cache, rig->host->OpenLocal());
  rig->chain = ChainOf(*rig->cache, kMatchBlocks, 1);
  CAIRN_RETURN_IF_ERROR(PutPrefix(*rig->cache, rig->host->layout(), rig->chain));
  if (by_call) {
    CAIRN_RETURN_IF_ERROR(rig->host->Serve(context.directory));
    CAIRN_ASSIGN_OR_RETURN(rig->cache, rig->host->Connect());
  }
  return Prepared{{{by_call ? "Match by call, unix" : "Match in process", Role::kOurs,
                    [rig] { return rig->Millis(); }}},
                  {}};
}

void AddHit(std::vector<Bench>& benches, const std::string& name, size_t blocks,
            const std::string& what, double quantile, double ratio_bound) {
  benches.push_back(
      {.name = name,
       .what = absl::StrCat("a hit of ", blocks, " mapped Flash blocks by one call, ", what),
       .unit = "us",
       .higher_is_better = false,
       .ratio_bound = ratio_bound,
       .prepare = [blocks, quantile](const BenchContext& context) {
         return PrepareHit(context, blocks, quantile);
       }});
}

void AddMatch(std::vector<Bench>& benches, const std::string& name, bool by_call) {
  benches.push_back({.name = name,
                     .what = "match of 8,192 blocks, digests given, median",
                     .unit = "ms",
                     .higher_is_better = false,
                     .figure_bound = 2,
                     .prepare = [by_call](const BenchContext& context) {
                       return PrepareMatch(context, by_call);
                     }});
}

}  // namespace

void AddHitBenches(std::vector<Bench>& benches) {
  AddHit(benches, "host-hit", 512, "median", kMedian, 1.5);
  AddHit(benches, "host-hit-64", 64, "median", kMedian, 1.5);
  AddHit(benches, "host-hit-p99", 512, "99th percentile", 0.99, 0);
  benches.push_back({.name = "host-hit-core",
                     .what = "a hit of 512 Flash blocks in process, median",
                     .unit = "us",
                     .higher_is_better = false,
                     .prepare = [](const BenchContext&) { return PrepareHitInProcess(512); }});
  AddMatch(benches, "match-8192", true);
  AddMatch(benches, "match-8192-core", false);
}

}  // namespace cairn::bench
