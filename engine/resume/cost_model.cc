#include "engine/resume/cost_model.h"

#include <algorithm>

namespace cairn::engine {
namespace {

constexpr double kTokenGuess = 1e-3;
// Chunks smaller than this say more about their overhead than about the model.
constexpr int64_t kTokensToLearnFrom = 64;
// So much of what was known is left after a step: its memory is some fifty steps, which must reach
// over a prompt or the line through them would be anything.
constexpr double kFade = 0.98;
// Below this spread of positions a line is noise.
constexpr double kPositionsApart = 256;

// A fetch of so many bytes weighs a quarter, a smaller one in proportion: one stall does not switch
// the cache off, a slow disk does. The first one that large is all that is known.
constexpr double kWeight = 0.25;
constexpr uint64_t kBytesToLearnFrom = 1 << 20;
// Of the way back to the guess, for each time that it was declined: what is too dear is tried again
// after thousands, so that what this costs does not show.
constexpr double kDoubt = 1.0 / 1024;

// A fetch may be longer than it was worth by so much before it is left.
constexpr double kFetchOverPrefill = 2;
constexpr absl::Duration kFetchPatienceMin = absl::Milliseconds(500);

}  // namespace

void TokenCost::Observe(double position, double seconds) {
  weight_ = weight_ * kFade + 1;
  const double share = 1 / weight_;
  const double apart = position - position_;
  const double above = seconds - seconds_;
  position_ += share * apart;
  seconds_ += share * above;
  spread_ = (1 - share) * (spread_ + share * apart * apart);
  common_ = (1 - share) * (common_ + share * apart * above);
}

double TokenCost::Seconds(int64_t from, int64_t to) const {
  const double tokens = static_cast<double>(to - from);
  if (weight_ == 0) return tokens * kTokenGuess;
  const bool line = spread_ > kPositionsApart * kPositionsApart && position_ > 0;
  // Never so steep that a token at the beginning would cost nothing.
  const double slope = line ? std::clamp(common_ / spread_, 0.0, 0.95 * seconds_ / position_) : 0;
  const double middle = static_cast<double>(from + to) / 2;
  return tokens * (seconds_ + slope * (middle - position_));
}

void CostModel::ByteCost::Observe(double a_byte, uint64_t bytes) {
  const double large =
      std::min(static_cast<double>(bytes) / static_cast<double>(kBytesToLearnFrom), 1.0);
  seconds += (measured ? kWeight * large : large) * (a_byte - seconds);
  measured |= large == 1.0;
}

void CostModel::ByteCost::Doubt() {
  if (seconds > guess) seconds += kDoubt * (guess - seconds);
}

void CostModel::ObservePrefill(int64_t from, int64_t tokens, double seconds) {
  if (tokens < kTokensToLearnFrom || seconds <= 0) return;
  const double count = static_cast<double>(tokens);
  const MutexLock lock(&mutex_);
  prefill_.Observe(static_cast<double>(from) + count / 2, seconds / count);
}

void CostModel::ObserveFetch(uint64_t host_bytes, uint64_t disk_bytes, double seconds) {
  // What the host tier would have taken is subtracted from a mixed fetch; the rest is the disk's.
  const double left = std::max(seconds - kFixedSeconds, 0.0);
  const MutexLock lock(&mutex_);
  if (disk_bytes > 0) {
    const double host_part = static_cast<double>(host_bytes) * host_.seconds;
    disk_.Observe(std::max(left - host_part, 0.0) / static_cast<double>(disk_bytes), disk_bytes);
  } else if (host_bytes > 0) {
    host_.Observe(left / static_cast<double>(host_bytes), host_bytes);
  }
}

double CostModel::PrefillSeconds(int64_t from, int64_t to) const {
  const MutexLock lock(&mutex_);
  return prefill_.Seconds(from, to);
}

void CostModel::ObserveDeclined() {
  const MutexLock lock(&mutex_);
  host_.Doubt();
  disk_.Doubt();
}

double CostModel::ReplaySeconds(const ReplayPlan& plan) const {
  double sum = 0;
  for (int64_t layer = 0; layer < plan.layers; ++layer) {
    sum += PrefillSeconds(plan.From(layer), plan.end);
  }
  return sum / static_cast<double>(plan.layers);
}

double CostModel::FetchSeconds(uint64_t host_bytes, uint64_t disk_bytes) const {
  const MutexLock lock(&mutex_);
  return kFixedSeconds + static_cast<double>(host_bytes) * host_.seconds +
         static_cast<double>(disk_bytes) * disk_.seconds;
}

absl::Duration CostModel::FetchPatience(int64_t tokens) const {
  return std::max(kFetchPatienceMin, absl::Seconds(kFetchOverPrefill * PrefillSeconds(0, tokens)));
}

}  // namespace cairn::engine
