#include "tests/clients/bystander.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "cache/client/remote_cache.h"
#include "store/base/clock.h"
#include "tests/clients/prefixes.h"

namespace cairn::clients {
namespace {

constexpr uint64_t kItsPrefix = 2'000'000;
constexpr absl::Duration kCallMax = absl::Seconds(30);

}  // namespace

absl::StatusOr<std::unique_ptr<Bystander>> Bystander::Connect(const std::string& socket) {
  std::unique_ptr<Bystander> bystander(new Bystander());
  cache::RemoteCacheOptions options;
  options.connect_timeout = options.call_timeout = options.stall_timeout = kCallMax;
  CAIRN_ASSIGN_OR_RETURN(bystander->cache_,
                         cache::ConnectCache("unix:" + socket, ClientsSpec(), options));
  bystander->chain_ = ChainOf(*bystander->cache_, kItsPrefix);
  CAIRN_RETURN_IF_ERROR(
      PutPrefix(*bystander->cache_, bystander->chain_, /*durable=*/true).status());
  return bystander;
}

Bystander::~Bystander() {
  stop_ = true;
  if (thread_.joinable()) thread_.join();
}

void Bystander::Begin() {
  stop_ = false;
  latencies_.clear();
  thread_ = std::thread([this] {
    while (!stop_ && status_.ok()) status_ = Hit();
  });
}

absl::Status Bystander::End(std::vector<int64_t>& latencies) {
  stop_ = true;
  thread_.join();
  latencies.insert(latencies.end(), latencies_.begin(), latencies_.end());
  return status_;
}

absl::Status Bystander::Hit() {
  const int64_t began = RealClock().NowNanos();
  CAIRN_ASSIGN_OR_RETURN(const cache::MatchResult found,
                         cache_->Match(chain_, {.lease_host = true}));
  if (found.leased != nullptr) {
    latencies_.push_back(RealClock().NowNanos() - began);
    return CheckPrefix(*found.leased);
  }
  if (found.rows_blocks < chain_.size() || found.checkpoints.empty()) {
    // Evicted: whoever uses it puts it again.
    return PutPrefix(*cache_, chain_, /*durable=*/false).status();
  }
  // On disk only, or it may lease no more just now. A fetch brings it back.
  const auto fetched = cache_->Fetch({.chain = chain_});
  return absl::IsResourceExhausted(fetched.status()) ? absl::OkStatus() : fetched.status();
}

int64_t QuantileOf(std::vector<int64_t> latencies, double share) {
  if (latencies.empty()) return 0;
  const size_t at = std::min(latencies.size() - 1,
                             static_cast<size_t>(share * static_cast<double>(latencies.size())));
  std::ranges::nth_element(latencies, latencies.begin() + static_cast<std::ptrdiff_t>(at));
  return latencies[at];
}

}  // namespace cairn::clients
