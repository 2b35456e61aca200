#include "engine/serve/cache_slots.h"

#include <algorithm>
#include <utility>

#include "store/base/thread.h"

namespace cairn::engine {
namespace {

// A wait is cut into these, to look between them whether anybody still wants it.
constexpr absl::Duration kWaitSlice = absl::Milliseconds(500);

using Interrupt = std::shared_ptr<std::atomic<const std::atomic<bool>*>>;

absl::Status StatusOf(const absl::Status& status) { return status; }
template <typename T>
absl::Status StatusOf(const absl::StatusOr<T>& value) {
  return value.status();
}

// One slot's way to the shared session, or its queue's (which nobody interrupts).
class SessionView final : public cache::CacheApi {
 public:
  SessionView(std::shared_ptr<CacheSession> session, Interrupt interrupt)
      : session_(std::move(session)), interrupt_(std::move(interrupt)) {}

  const cache::Registration& registration() const override { return api().registration(); }
  absl::StatusOr<cache::MatchResult> Match(std::span<const Digest> chain,
                                           const cache::MatchOptions& options) override {
    return Noticing([&] { return api().Match(chain, options); });
  }
  absl::StatusOr<std::unique_ptr<cache::FetchedPrefix>> Fetch(
      const cache::FetchRequest& request) override {
    // A late one may have been too slow a disk; if the daemon hangs, the next call finds out.
    return Noticing([&] { return api().Fetch(request); }, /*late_is_lost=*/false);
  }
  absl::StatusOr<std::vector<cache::ReserveResult>> Reserve(
      std::span<const cache::ReserveItem> items, absl::Duration wait) override {
    for (;;) {
      const absl::Duration slice = std::min(wait, kWaitSlice);
      auto results = Noticing([&] { return api().Reserve(items, slice); });
      wait -= slice;
      if (!results.ok() || results->empty() || wait <= absl::ZeroDuration() ||
          results->front().state != cache::ReserveState::kWait || Interrupted()) {
        return results;
      }
    }
  }
  absl::StatusOr<std::unique_ptr<cache::StagingBuffer>> Stage(uint64_t bytes) override {
    return Noticing([&] { return api().Stage(bytes); });
  }
  absl::StatusOr<std::vector<absl::Status>> Commit(std::span<const cache::CommitItem> items,
                                                   bool durable) override {
    return Noticing([&] { return api().Commit(items, durable); });
  }
  absl::Status Abort(std::span<const uint64_t> reservations) override {
    return Noticing([&] { return api().Abort(reservations); });
  }
  absl::StatusOr<std::vector<cache::NamedCount>> Stats() override {
    return Noticing([&] { return api().Stats(); });
  }

 private:
  cache::CacheApi& api() const { return *session_->api; }
  bool Interrupted() const {
    const std::atomic<bool>* flag = interrupt_ == nullptr ? nullptr : interrupt_->load();
    return flag != nullptr && flag->load();
  }
  // The first call that finds the daemon gone pays for all others.
  template <typename Call>
  auto Noticing(const Call& call, bool late_is_lost = true) -> decltype(call()) {
    if (session_->lost.load()) return absl::UnavailableError("the cache was lost");
    auto result = call();
    const absl::Status status = StatusOf(result);
    if (absl::IsUnavailable(status) || (late_is_lost && absl::IsDeadlineExceeded(status))) {
      session_->lost = true;
    }
    return result;
  }

  const std::shared_ptr<CacheSession> session_;
  const Interrupt interrupt_;
};

void Add(const PutStats& more, PutStats& sum) {
  sum.put_entries += more.put_entries;
  sum.put_bytes += more.put_bytes;
  sum.existing_entries += more.existing_entries;
  sum.dropped_entries += more.dropped_entries;
}

}  // namespace

CacheSlot::CacheSlot(std::shared_ptr<CacheSession> session, const CachedModel& model, Clock& clock,
                     PrefixCache::Options options)
    : session_(std::move(session)),
      interrupt_(std::make_shared<std::atomic<const std::atomic<bool>*>>(nullptr)),
      cache_(std::unique_ptr<cache::CacheApi>(std::make_unique<SessionView>(session_, interrupt_)),
             model, clock, std::move(options)) {}

CacheSlots::CacheSlots(Connect connect, const CachedModel& model, Clock& clock, Options options)
    : connect_(std::move(connect)), model_(model), clock_(clock), options_(std::move(options)) {
  ConnectOnce();
}

CacheSlots::~CacheSlots() { AwaitConnect(); }

void CacheSlots::AwaitConnect() {
  std::thread connector;
  {
    const MutexLock lock(&mutex_);
    connector = std::move(connector_);
  }
  if (connector.joinable()) connector.join();
}

void CacheSlots::SayLocked(const std::string& line) {
  if (options_.say) options_.say(line);
}

void CacheSlots::ConnectOnce() {
  {
    std::vector<std::unique_ptr<CacheSlot>> lost;  // dies outside of the lock
    const MutexLock lock(&mutex_);
    lost.swap(lost_);
  }
  absl::StatusOr<std::unique_ptr<cache::CacheApi>> api = connect_();
  std::shared_ptr<CacheSession> before;  // may wait for a call in progress, outside of the lock
  const MutexLock lock(&mutex_);
  connecting_ = false;
  retry_at_nanos_ = clock_.NowNanos() + absl::ToInt64Nanoseconds(options_.retry);
  if (!api.ok()) {
    if (!std::exchange(said_, true)) {
      SayLocked(absl::StrCat("cache not used, prefilling instead: ", api.status().ToString()));
    }
    return;
  }
  before = std::exchange(session_, std::make_shared<CacheSession>());
  if (before != nullptr) Add(before->puts->stats(), gone_);
  session_->api = *std::move(api);
  // The queue is the session's, not the other way round.
  std::shared_ptr<CacheSession> unowned(std::shared_ptr<CacheSession>(), session_.get());
  session_->puts = std::make_shared<PutQueue>(
      std::make_shared<SessionView>(std::move(unowned), nullptr), options_.put_queue_bytes);
  if (std::exchange(said_, false)) SayLocked("the cache is back");
}

// In the background, so that no request waits for it.
void CacheSlots::Reconnect() {
  std::thread before;  // has ended, or connecting_ would be true
  {
    const MutexLock lock(&mutex_);
    const bool lost = session_ == nullptr || session_->lost.load();
    if (connecting_ || !lost || clock_.NowNanos() < retry_at_nanos_) return;
    absl::StatusOr<std::thread> connector = StartThread([this] { ConnectOnce(); });
    if (!connector.ok()) {
      retry_at_nanos_ = clock_.NowNanos() + absl::ToInt64Nanoseconds(options_.retry);
      return;
    }
    connecting_ = true;
    before = std::exchange(connector_, *std::move(connector));
  }
  if (before.joinable()) before.join();
}

void CacheSlots::RemoveLocked(CacheSlot* slot) {
  slot->LoseSession();
  const auto it =
      std::find_if(all_.begin(), all_.end(), [&](const auto& each) { return each.get() == slot; });
  lost_.push_back(std::move(*it));
  all_.erase(it);
}

CacheSlot* CacheSlots::Take() {
  Reconnect();
  const MutexLock lock(&mutex_);
  while (!free_.empty()) {
    CacheSlot* slot = free_.back();
    free_.pop_back();
    if (!slot->lost()) return slot;
    RemoveLocked(slot);
  }
  if (session_ == nullptr || session_->lost.load()) return nullptr;
  PrefixCache::Options options{.wait = options_.wait,
                               .overlap_bytes_min = options_.overlap_bytes_min,
                               .step_tokens = options_.step_tokens,
                               .puts = session_->puts,
                               .costs = costs_,
                               .shared = &shared_,
                               .say = [this](const std::string& line) {
                                 const MutexLock say_lock(&mutex_);
                                 if (!std::exchange(said_, true)) SayLocked(line);
                               }};
  all_.push_back(std::make_unique<CacheSlot>(session_, model_, clock_, std::move(options)));
  return all_.back().get();
}

void CacheSlots::Give(CacheSlot* slot) {
  slot->InterruptBy(nullptr);
  const MutexLock lock(&mutex_);
  if (slot->lost()) {
    RemoveLocked(slot);
  } else {
    free_.push_back(slot);
  }
}

bool CacheSlots::attached() const {
  const MutexLock lock(&mutex_);
  return session_ != nullptr && !session_->lost.load();
}

void CacheSlots::Flush(absl::Duration deadline) {
  std::shared_ptr<CacheSession> session;
  {
    const MutexLock lock(&mutex_);
    session = session_;
  }
  if (session != nullptr) session->puts->Flush(deadline);
}

PutStats CacheSlots::put_stats() const {
  const MutexLock lock(&mutex_);
  PutStats sum = gone_;
  if (session_ != nullptr) Add(session_->puts->stats(), sum);
  return sum;
}

}  // namespace cairn::engine
