#include "engine/forward/expert_cache.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "store/base/clock.h"

namespace cairn::engine {

ExpertCache::ExpertCache(const Options& options, Load load)
    : options_(options),
      load_(std::move(load)),
      places_(static_cast<size_t>(options.places)),
      place_of_(static_cast<size_t>(options.layers * options.experts), kNone),
      policy_(options.layers, options.experts) {
  stats_.places = static_cast<uint64_t>(options.places);
  stats_.experts = static_cast<uint64_t>(options.layers * options.experts);
  for (int i = 0; i < options.readers; ++i) readers_.emplace_back([this] { ReadUntilStopped(); });
}

ExpertCache::~ExpertCache() { StopReaders(); }

void ExpertCache::StopReaders() {
  {
    const MutexLock lock(&mutex_);
    stop_ = true;
    work_.SignalAll();
  }
  for (std::thread& reader : readers_) reader.join();
  readers_.clear();
}

absl::Status ExpertCache::LoadAll() {
  std::vector<int32_t> all(static_cast<size_t>(options_.experts));
  std::iota(all.begin(), all.end(), 0);
  for (int64_t layer = 0; layer < options_.layers; ++layer) {
    Use use(*this, layer, all);
    for (size_t i = 0; i < all.size(); ++i) CAIRN_RETURN_IF_ERROR(use.Next().status());
  }
  StopReaders();
  const MutexLock lock(&mutex_);
  stats_.misses = stats_.wait_nanos = 0;  // no step's
  complete_ = true;
  return absl::OkStatus();
}

ExpertStats ExpertCache::stats() const {
  const MutexLock lock(&mutex_);
  ExpertStats stats = stats_;
  stats.hits += complete_hits_;
  return stats;
}

// ---- a step ----

ExpertCache::Use::Use(ExpertCache& cache, int64_t layer, std::vector<int32_t> wanted)
    : cache_(cache), layer_(layer), wanted_(std::move(wanted)), waits_(!cache.complete_) {
  if (!waits_) return;
  const MutexLock lock(&cache.mutex_);
  while (cache.in_use_) cache.free_.Wait(&cache.mutex_);
  cache.in_use_ = true;
  ++cache.use_;
  cache.layer_ = layer_;
  cache.wanted_ = wanted_;
  cache.held_ = cache.issued_ = 0;
  cache.stalled_ = false;
  cache.failure_ = absl::OkStatus();
  cache.policy_.Step(layer_, wanted_);
  cache.WakeReaders();
}

ExpertCache::Use::~Use() {
  if (!waits_) return;
  const MutexLock lock(&cache_.mutex_);
  cache_.in_use_ = false;
  cache_.wanted_ = {};
  cache_.held_ = cache_.issued_ = 0;
  cache_.free_.Signal();
}

absl::StatusOr<const ExpertOp*> ExpertCache::Use::Next() {
  const size_t i = next_++;
  const int64_t key = cache_.KeyOf(layer_, wanted_[i]);
  if (!waits_) return cache_.TakeComplete(key);
  const MutexLock lock(&cache_.mutex_);
  cache_.held_ = i;
  cache_.stalled_ = false;
  cache_.WakeReaders();
  if (!cache_.IsReady(key)) cache_.AwaitReady(key);
  if (!cache_.failure_.ok()) return cache_.failure_;
  const Place& place = cache_.PlaceOf(key);
  ++(place.read_for == cache_.use_ ? cache_.stats_.misses : cache_.stats_.hits);
  return &place.expert;
}

void ExpertCache::AwaitReady(int64_t key) {
  const int64_t start = RealClock().NowNanos();
  while (!IsReady(key) && failure_.ok()) ready_.Wait(&mutex_);
  stats_.wait_nanos += static_cast<uint64_t>(RealClock().NowNanos() - start);
}

// Nothing changes any more, so nothing is locked.
const ExpertOp* ExpertCache::TakeComplete(int64_t key) {
  complete_hits_.fetch_add(1, std::memory_order_relaxed);
  return &PlaceOf(key).expert;
}

// ---- reading ----

void ExpertCache::PassThoseHere() {
  while (issued_ < wanted_.size() &&
         place_of_[static_cast<size_t>(KeyOf(layer_, wanted_[issued_]))] != kNone) {
    ++issued_;
  }
}

// Readers are woken only if there is something to read: most steps find all they need.
void ExpertCache::WakeReaders() {
  PassThoseHere();
  if (MayRead()) work_.SignalAll();
}

// Its place among the experts that the step has not done with; wanted_.size(): none.
size_t ExpertCache::IndexOf(int64_t key) const {
  if (key / options_.experts != layer_) return wanted_.size();
  const int64_t expert = key % options_.experts;
  const auto found =
      std::lower_bound(wanted_.begin() + static_cast<int64_t>(held_), wanted_.end(), expert);
  if (found == wanted_.end() || *found != expert) return wanted_.size();
  return static_cast<size_t>(found - wanted_.begin());
}

float ExpertCache::WaitOf(int64_t key) const {
  const size_t i = IndexOf(key);
  if (i == wanted_.size()) return policy_.Wait(key / options_.experts, key % options_.experts);
  // Before this step is over; any other waits for longer.
  return i < issued_ ? -1.0f : static_cast<float>(i) / static_cast<float>(wanted_.size());
}

int64_t ExpertCache::FindPlace() const {
  int64_t best = kNone;
  float best_wait = -1.0f;
  for (size_t i = 0; i < places_.size(); ++i) {
    const Place& place = places_[i];
    if (place.state == State::kReading) continue;
    if (place.state == State::kFree) return static_cast<int64_t>(i);
    if (const float wait = WaitOf(place.key); wait > best_wait) {
      best = static_cast<int64_t>(i);
      best_wait = wait;
    }
  }
  return best;
}

int64_t ExpertCache::TakePlace() {
  PassThoseHere();
  if (issued_ == wanted_.size()) return kNone;
  const int64_t found = FindPlace();
  if (found == kNone) {
    stalled_ = true;
    return kNone;
  }
  Place& place = places_[static_cast<size_t>(found)];
  if (place.state == State::kReady) {
    place_of_[static_cast<size_t>(place.key)] = kNone;
    ++stats_.evictions;
  }
  place.state = State::kReading;
  place.key = KeyOf(layer_, wanted_[issued_]);
  place.read_for = use_;
  place_of_[static_cast<size_t>(place.key)] = found;
  ++issued_;
  return found;
}

void ExpertCache::Finish(int64_t taken, const absl::StatusOr<uint64_t>& read) {
  Place& place = places_[static_cast<size_t>(taken)];
  stalled_ = false;
  ready_.SignalAll();
  if (read.ok()) {
    place.state = State::kReady;
    ++stats_.reads;
    stats_.read_bytes += *read;
    return;
  }
  place_of_[static_cast<size_t>(place.key)] = kNone;
  place.state = State::kFree;
  const size_t wanted = IndexOf(place.key);
  if (wanted == wanted_.size()) return;  // nobody's by now
  if (place.read_for == use_) {
    failure_ = read.status();
    return;
  }
  // An earlier Use's, from before this one asked: it is read again for this one.
  issued_ = std::min(issued_, wanted);
  WakeReaders();
}

void ExpertCache::ReadUntilStopped() {
  ReadRoom room;
  mutex_.Lock();
  for (;;) {
    while (!stop_ && !MayRead()) work_.Wait(&mutex_);
    if (stop_) break;
    const int64_t taken = TakePlace();
    if (taken == kNone) continue;
    Place& place = places_[static_cast<size_t>(taken)];
    const int64_t key = place.key;
    ExpertOp& into = place.expert;
    mutex_.Unlock();
    const absl::StatusOr<uint64_t> read =
        load_(key / options_.experts, key % options_.experts, room, into);
    mutex_.Lock();
    Finish(taken, read);
  }
  mutex_.Unlock();
}

}  // namespace cairn::engine
