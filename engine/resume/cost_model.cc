#include "engine/resume/cost_model.h"

#include <algorithm>

namespace cairn::engine {
namespace {

// Chunks smaller than this say more about their overhead than about the model.
constexpr int64_t kTokensToLearnFrom = 64;
constexpr uint64_t kBytesToLearnFrom = 1 << 20;

}  // namespace

void CostModel::ObservePrefill(int64_t tokens, double seconds) {
  if (tokens < kTokensToLearnFrom || seconds <= 0) return;
  const double measured = seconds / static_cast<double>(tokens);
  per_token_ = prefill_seen_ ? per_token_ + kWeight * (measured - per_token_) : measured;
  prefill_seen_ = true;
}

void CostModel::ObserveFetch(uint64_t host_bytes, uint64_t disk_bytes, double seconds) {
  // What the host tier would have taken is subtracted from a mixed fetch; the rest is the disk's.
  const double host_part = static_cast<double>(host_bytes) * per_host_byte_;
  const double left = std::max(seconds - kFixedSeconds, 0.0);
  if (disk_bytes >= kBytesToLearnFrom) {
    const double measured = std::max(left - host_part, 0.0) / static_cast<double>(disk_bytes);
    per_disk_byte_ += kWeight * (measured - per_disk_byte_);
  } else if (disk_bytes == 0 && host_bytes >= kBytesToLearnFrom) {
    per_host_byte_ += kWeight * (left / static_cast<double>(host_bytes) - per_host_byte_);
  }
}

double CostModel::FetchSeconds(uint64_t host_bytes, uint64_t disk_bytes) const {
  return kFixedSeconds + static_cast<double>(host_bytes) * per_host_byte_ +
         static_cast<double>(disk_bytes) * per_disk_byte_;
}

}  // namespace cairn::engine
