// arriving_rig.h: a cache on another host, whose prefixes arrive as a test says, on its own thread:
// whoever awaits a group calls the test, which lets it come, lets it wait or ends it.
//
// Threads: the test's, and those that await. Errors: as expectations.
#ifndef CAIRN_TESTS_RESUME_ARRIVING_RIG_H_
#define CAIRN_TESTS_RESUME_ARRIVING_RIG_H_

#include <cstring>
#include <utility>

#include "store/base/mutex.h"
#include "tests/resume/resume_rig.h"

namespace cairn::engine {

// Of an entry nothing but 0xa5 is there before its group is.
class ArrivingByHand final : public cache::FetchedPrefix {
 public:
  struct Hooks {
    // Somebody awaits so many groups, and not all of them are there.
    std::function<void(ArrivingByHand&, size_t)> on_await = {};
    std::function<void()> on_drop = {};
  };

  ArrivingByHand(std::unique_ptr<cache::FetchedPrefix> whole,
                 std::span<const cache::PartGroup> groups, const cache::EntryShapes& shapes,
                 Hooks hooks)
      : whole_(std::move(whole)), hooks_(std::move(hooks)) {
    for (const cache::PartGroup& group : groups) {
      const auto bytes = [](const std::vector<uint32_t>& parts, uint32_t count) {
        size_t sum = 0;
        for (uint32_t i = 0; i < count; ++i) sum += parts[i];
        return sum;
      };
      ends_.emplace_back(bytes(shapes.rows, group.rows_parts),
                         bytes(shapes.checkpoint, group.checkpoint_parts));
    }
    for (const cache::EntryView& entry : whole_->rows) rows.push_back(Own(entry));
    if (whole_->checkpoint.has_value()) checkpoint = Own(*whole_->checkpoint);
    host_bytes = whole_->host_bytes;
    disk_bytes = whole_->disk_bytes;
    copied_bytes = payload_bytes();
    Let(1);
  }
  ~ArrivingByHand() override {
    if (hooks_.on_drop) hooks_.on_drop();
  }

  size_t groups() const { return ends_.size(); }
  size_t arrived() const {
    const MutexLock lock(&mutex_);
    return arrived_;
  }
  // The first so many groups are there.
  void Let(size_t groups) {
    const MutexLock lock(&mutex_);
    for (; arrived_ < groups; ++arrived_) {
      for (size_t i = 0; i <= rows.size(); ++i) {
        const bool row = i < rows.size();
        if (!row && !checkpoint.has_value()) continue;
        const auto end = [&](size_t g) {
          return g == 0 ? 0 : row ? ends_[g - 1].first : ends_[g - 1].second;
        };
        const auto& from = row ? whole_->rows[i].payload : whole_->checkpoint->payload;
        const size_t at = end(arrived_);
        std::memcpy(memory_[i].data() + at, from.data() + at, end(arrived_ + 1) - at);
      }
    }
  }
  void End(absl::Status why) {
    const MutexLock lock(&mutex_);
    end_ = std::move(why);
  }

  absl::Status Await(size_t groups) const override {
    groups = std::min(groups, ends_.size());
    if (arrived() < groups && hooks_.on_await) {
      hooks_.on_await(const_cast<ArrivingByHand&>(*this), groups);
    }
    const auto settled = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
      return arrived_ >= groups || !end_.ok();
    };
    const MutexLock lock(&mutex_);
    mutex_.Await(settled);
    return absl::IsDataLoss(end_) || arrived_ < groups ? end_ : absl::OkStatus();
  }
  cache::Arrival arrival() const override {
    const MutexLock lock(&mutex_);
    return {.ended = arrived_ == ends_.size() || !end_.ok(),
            .share = static_cast<double>(arrived_) / static_cast<double>(ends_.size()),
            .seconds = seconds};
  }

  double seconds = 0.001;  // what it says that it took so far

 private:
  cache::EntryView Own(const cache::EntryView& entry) {
    cache::EntryView view{.key = entry.key, .payload = {}, .parts = *entry.Parts()};
    memory_.emplace_back(entry.payload.size(), uint8_t{0xa5});
    view.payload = memory_.back();
    return view;
  }

  const std::unique_ptr<cache::FetchedPrefix> whole_;
  const Hooks hooks_;
  std::vector<std::pair<size_t, size_t>> ends_;  // of the groups, in rows and checkpoint
  std::vector<std::vector<uint8_t>> memory_;
  mutable Mutex mutex_;
  size_t arrived_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status end_ ABSL_GUARDED_BY(mutex_);
};

// Maps nothing; what is fetched in groups arrives by hand.
class DistantCache final : public Wrapped {
 public:
  DistantCache(std::unique_ptr<cache::CacheApi> inner, ArrivingByHand::Hooks hooks_used)
      : Wrapped(std::move(inner)),
        hooks(std::move(hooks_used)),
        shapes_(SmallModel().layout->Descriptor(SmallModel().weights_identity)),
        registration_(Wrapped::registration()) {
    registration_.mapped = false;
  }

  const cache::Registration& registration() const override { return registration_; }
  void SetMapped() { registration_.mapped = true; }
  absl::StatusOr<cache::MatchResult> Match(std::span<const Digest> chain,
                                           const cache::MatchOptions&) override {
    return Wrapped::Match(chain, {});
  }
  absl::StatusOr<std::unique_ptr<cache::FetchedPrefix>> Fetch(
      const cache::FetchRequest& request) override {
    groups_asked.push_back(request.groups.size());
    auto whole = Wrapped::Fetch(request);
    if (!whole.ok() || request.groups.empty()) return whole;
    auto arriving =
        std::make_unique<ArrivingByHand>(*std::move(whole), request.groups, shapes_, hooks);
    arriving->seconds = seconds;
    if (!end_at_once.ok()) arriving->End(end_at_once);
    last = arriving.get();
    return arriving;
  }

  ArrivingByHand::Hooks hooks;
  double seconds = 0.001;
  absl::Status end_at_once;
  std::vector<size_t> groups_asked = {};  // of each fetch
  ArrivingByHand* last = nullptr;

 private:
  const cache::EntryShapes shapes_;
  cache::Registration registration_;
};

inline std::unique_ptr<DistantCache> Distant(const Daemon& daemon,
                                             ArrivingByHand::Hooks hooks = {}) {
  auto inner = daemon.Connect();
  EXPECT_TRUE(inner.ok()) << inner.status();
  return std::make_unique<DistantCache>(*std::move(inner), std::move(hooks));
}

}  // namespace cairn::engine

#endif  // CAIRN_TESTS_RESUME_ARRIVING_RIG_H_
