// slow_cache.h: a cache in this process that behaves as if it lay further away: what it holds
// comes from disk, at a given bandwidth, or is as the policy `zero` leaves it.
//
// Threads: as cache_api.h. Units: bytes a second. Errors: as the inner cache's; DEADLINE_EXCEEDED
// when the bandwidth does not suffice for a fetch's deadline.
#ifndef CAIRN_TOOLS_CAIRN_BENCH_SLOW_CACHE_H_
#define CAIRN_TOOLS_CAIRN_BENCH_SLOW_CACHE_H_

#include <algorithm>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "cache/client/cache_api.h"
#include "store/base/clock.h"

namespace cairn::bench {

struct Place {
  std::string name;
  double bytes_per_second = 0;  // 0: host memory, mapped
  bool rows_alone = false;
};

class SlowCache final : public cache::CacheApi {
 public:
  SlowCache(std::unique_ptr<cache::CacheApi> inner, Place place)
      : inner_(std::move(inner)), place_(std::move(place)), registration_(inner_->registration()) {
    if (place_.rows_alone) registration_.policy = {};
  }

  const cache::Registration& registration() const override { return registration_; }
  absl::StatusOr<cache::MatchResult> Match(std::span<const Digest> chain,
                                           const cache::MatchOptions& options) override {
    const bool lease = options.lease_host && !slow() && !place_.rows_alone;
    auto match = inner_->Match(chain, {.lease_host = lease});
    if (!match.ok()) return match;
    if (place_.rows_alone) match->checkpoints.clear();
    if (slow()) {
      match->rows_host_blocks = 0;
      for (cache::CheckpointHit& hit : match->checkpoints) hit.tier = cache::Tier::kDisk;
    }
    return match;
  }
  absl::StatusOr<std::unique_ptr<cache::FetchedPrefix>> Fetch(
      const cache::FetchRequest& request) override {
    const int64_t start = RealClock().NowNanos();
    auto fetched = inner_->Fetch(request);
    if (!fetched.ok() || !slow()) return fetched;
    cache::FetchedPrefix& prefix = **fetched;
    const double bytes = static_cast<double>(prefix.host_bytes);
    const absl::Duration takes = absl::Seconds(bytes / place_.bytes_per_second);
    const absl::Duration took = absl::Nanoseconds(RealClock().NowNanos() - start);
    std::this_thread::sleep_for(
        absl::ToChronoNanoseconds(std::min(takes, request.deadline) - took));
    if (takes > request.deadline) return absl::DeadlineExceededError("the disk is too slow");
    prefix.disk_bytes = std::exchange(prefix.host_bytes, 0);
    return fetched;
  }
  absl::StatusOr<std::vector<cache::ReserveResult>> Reserve(
      std::span<const cache::ReserveItem> items, absl::Duration wait) override {
    return inner_->Reserve(items, wait);
  }
  absl::StatusOr<std::unique_ptr<cache::StagingBuffer>> Stage(uint64_t bytes) override {
    return inner_->Stage(bytes);
  }
  absl::StatusOr<std::vector<absl::Status>> Commit(std::span<const cache::CommitItem> items,
                                                   bool durable) override {
    return inner_->Commit(items, durable);
  }
  absl::Status Abort(std::span<const uint64_t> reservations) override {
    return inner_->Abort(reservations);
  }
  absl::StatusOr<std::vector<cache::NamedCount>> Stats() override { return inner_->Stats(); }

 private:
  bool slow() const { return place_.bytes_per_second > 0; }

  const std::unique_ptr<cache::CacheApi> inner_;
  const Place place_;
  cache::Registration registration_;
};

}  // namespace cairn::bench

#endif  // CAIRN_TOOLS_CAIRN_BENCH_SLOW_CACHE_H_
