// slow_cache.h: a cache in this process that behaves as if it lay further away: what it holds
// comes from disk, at a given bandwidth, or from another host, in the groups that were asked for,
// or is as the policy `zero` leaves it.
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
  bool distant = false;  // from the memory of another host
};

// Copied, and there as fast as the bandwidth has it.
class DistantPrefix final : public cache::FetchedPrefix {
 public:
  // In `groups`, the last of which is the whole. `begin_nanos`: the first byte is due.
  static absl::StatusOr<std::unique_ptr<DistantPrefix>> Make(
      const cache::FetchedPrefix& from, std::span<const cache::PartGroup> groups,
      double bytes_per_second, int64_t begin_nanos) {
    auto prefix = std::make_unique<DistantPrefix>();
    prefix->begin_nanos_ = begin_nanos;
    prefix->memory_.resize(from.payload_bytes());
    std::span<uint8_t> room = prefix->memory_;
    std::vector<double> bytes(std::max<size_t>(groups.size(), 1), 0.0);
    const auto add = [&](const cache::EntryView& entry, auto part_end) -> absl::Status {
      CAIRN_RETURN_IF_ERROR(entry.CopyOut(room));
      CAIRN_ASSIGN_OR_RETURN(std::vector<EntryPart> parts, entry.Parts());
      for (size_t i = 0, g = 0; i < parts.size(); ++i) {
        while (g + 1 < bytes.size() && i >= part_end(groups[g])) ++g;
        bytes[g] += parts[i].bytes;
      }
      const std::span<const uint8_t> payload = room.first(entry.payload.size());
      room = room.subspan(payload.size());
      cache::EntryView view{.key = entry.key, .payload = payload, .parts = std::move(parts)};
      if (entry.key.kind == EntryKind::kRows) {
        prefix->rows.push_back(std::move(view));
      } else {
        prefix->checkpoint = std::move(view);
      }
      return absl::OkStatus();
    };
    for (const cache::EntryView& entry : from.rows) {
      CAIRN_RETURN_IF_ERROR(add(entry, [](const cache::PartGroup& g) { return g.rows_parts; }));
    }
    if (from.checkpoint.has_value()) {
      CAIRN_RETURN_IF_ERROR(
          add(*from.checkpoint, [](const cache::PartGroup& g) { return g.checkpoint_parts; }));
    }
    double seconds = 0;
    for (const double of_group : bytes) {
      prefix->due_seconds_.push_back(seconds += of_group / bytes_per_second);
    }
    prefix->host_bytes = from.host_bytes;
    prefix->copied_bytes = prefix->memory_.size();
    prefix->verified = true;
    return prefix;
  }

  double seconds() const { return due_seconds_.back(); }
  absl::Status Await(size_t groups) const override {
    if (groups == 0) return absl::OkStatus();
    const double due = due_seconds_[std::min(groups, due_seconds_.size()) - 1];
    std::this_thread::sleep_for(absl::ToChronoNanoseconds(absl::Seconds(due - Passed())));
    return absl::OkStatus();
  }
  cache::Arrival arrival() const override {
    const double passed = std::min(Passed(), seconds());
    return {.ended = passed == seconds(), .share = passed / seconds(), .seconds = passed};
  }

 private:
  double Passed() const {
    return static_cast<double>(RealClock().NowNanos() - begin_nanos_) * 1e-9;
  }

  int64_t begin_nanos_ = 0;
  std::vector<uint8_t> memory_;
  std::vector<double> due_seconds_;  // of the groups
};

class SlowCache final : public cache::CacheApi {
 public:
  SlowCache(std::unique_ptr<cache::CacheApi> inner, Place place)
      : inner_(std::move(inner)), place_(std::move(place)), registration_(inner_->registration()) {
    if (place_.rows_alone) registration_.policy = {};
    registration_.mapped &= !place_.distant;
  }

  const cache::Registration& registration() const override { return registration_; }
  absl::StatusOr<cache::MatchResult> Match(std::span<const Digest> chain,
                                           const cache::MatchOptions& options) override {
    const bool lease = options.lease_host && !slow() && !place_.rows_alone;
    auto match = inner_->Match(chain, {.lease_host = lease});
    if (!match.ok()) return match;
    if (place_.rows_alone) match->checkpoints.clear();
    if (slow() && !place_.distant) {
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
    if (place_.distant) {
      CAIRN_ASSIGN_OR_RETURN(
          std::unique_ptr<DistantPrefix> distant,
          DistantPrefix::Make(prefix, request.groups, place_.bytes_per_second, start));
      if (absl::Seconds(distant->seconds()) > request.deadline) {
        std::this_thread::sleep_for(absl::ToChronoNanoseconds(request.deadline));
        return absl::DeadlineExceededError("the network is too slow");
      }
      CAIRN_RETURN_IF_ERROR(distant->Await(1));
      return distant;
    }
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
