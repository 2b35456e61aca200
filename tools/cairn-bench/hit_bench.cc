// A hit in host memory on the same host, by one call, beside the barest call there is; and how long
// a match of a million tokens takes.
#include <algorithm>

#include "store/base/clock.h"
#include "tools/cairn-bench/bare_call.h"
#include "tools/cairn-bench/benches.h"
#include "tools/cairn-bench/daemon_process.h"
#include "tools/cairn-bench/flash_layout.h"
#include "tools/cairn-bench/host_fixture.h"

namespace cairn::bench {
namespace {

constexpr size_t kHitCalls = 1000;
constexpr size_t kMatchBlocks = 8192;
constexpr size_t kMatchCalls = 200;

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
  std::unique_ptr<HostFixture> host;      // in this process, or
  std::unique_ptr<DaemonProcess> daemon;  // a cairnd
  std::unique_ptr<cache::CacheApi> cache, by_grpc;
  std::unique_ptr<BareCall> bare;
  std::vector<Digest> chain;
  cache::MatchResult hit;

  absl::Status Hit(cache::CacheApi& api) {
    CAIRN_ASSIGN_OR_RETURN(hit, api.Match(chain, {.lease_host = true}));
    if (hit.leased != nullptr && hit.leased->rows.size() == chain.size()) return absl::OkStatus();
    return absl::InternalError("not a hit");
  }
  // The lease goes by a call in the background, which is over before anything else is timed.
  absl::Status LetGo(cache::CacheApi& api) {
    hit.leased.reset();
    for (uint64_t open = 1; open != 0;) {
      CAIRN_ASSIGN_OR_RETURN(const std::vector<cache::NamedCount> counts, api.Stats());
      for (const cache::NamedCount& count : counts) {
        if (count.name == "open_leases") open = count.value;
      }
    }
    return absl::OkStatus();
  }

  absl::StatusOr<double> Ours(cache::CacheApi& api) {
    return QuantileMicros(
        quantile, kHitCalls, [&] { return LetGo(api); }, [&] { return Hit(api); });
  }
  // One behind the other, with everything in cache.
  absl::StatusOr<double> BackToBack() {
    return QuantileMicros(
        quantile, kHitCalls, [this] { return bare->Call(); }, [this] { return bare->Call(); });
  }
  // Behind what goes before each of ours.
  absl::StatusOr<double> BehindAHit() {
    const auto hit_and_let_go = [this]() -> absl::Status {
      CAIRN_RETURN_IF_ERROR(Hit(*cache));
      return LetGo(*cache);
    };
    return QuantileMicros(quantile, kHitCalls, hit_and_let_go, [this] { return bare->Call(); });
  }
};

absl::StatusOr<Prepared> PrepareHit(const BenchContext& context, size_t blocks, double quantile) {
  auto rig = std::make_shared<HitRig>();
  rig->quantile = quantile;
  CAIRN_ASSIGN_OR_RETURN(rig->daemon, DaemonProcess::Start(context.directory, {}));
  CAIRN_ASSIGN_OR_RETURN(rig->cache, ConnectToDaemon(context.directory, {FlashLayout(), ""}));
  rig->chain = ChainOf(*rig->cache, blocks, 1);
  CAIRN_RETURN_IF_ERROR(PutPrefix(*rig->cache, FlashLayout(), rig->chain));
  CAIRN_ASSIGN_OR_RETURN(rig->by_grpc,
                         ConnectToDaemon(context.directory, {FlashLayout(), ""},
                                         {.call_timeout = absl::Seconds(10), .lookups = false}));
  CAIRN_ASSIGN_OR_RETURN(rig->bare, BareCall::Start(context.directory));
  return Prepared{
      {{"gRPC unary call of empty messages, unix, back to back", Role::kLimit,
        [rig] { return rig->BackToBack(); }},
       {"match, lease, mapped entries", Role::kOurs, [rig] { return rig->Ours(*rig->cache); }},
       {"the same by gRPC", Role::kRival, [rig] { return rig->Ours(*rig->by_grpc); }},
       {"that unary call, each behind a hit", Role::kRival, [rig] { return rig->BehindAHit(); }}},
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
      {{"match, lease, entries in process", Role::kOurs, [rig] { return rig->Ours(*rig->cache); }}},
      {}};
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
       .what = absl::StrCat("a hit of ", blocks, " mapped Flash blocks of a cairnd, ", what),
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
