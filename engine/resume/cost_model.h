// cost_model.h: what loading a prefix costs, and computing it. Learned while running: seconds a
// prefilled token, seconds a fetched byte of each tier. Until something was measured the cautious
// guesses below hold.
//
// Threads: externally synchronised. Units: seconds, tokens, bytes.
#ifndef CAIRN_ENGINE_RESUME_COST_MODEL_H_
#define CAIRN_ENGINE_RESUME_COST_MODEL_H_

#include <cstdint>

#include "cache/client/cache_api.h"

namespace cairn::engine {

class CostModel {
 public:
  void ObservePrefill(int64_t tokens, double seconds);
  // host and disk bytes of one fetch, and how long it took with verifying and restoring.
  void ObserveFetch(uint64_t host_bytes, uint64_t disk_bytes, double seconds);

  double PrefillSeconds(int64_t tokens) const { return static_cast<double>(tokens) * per_token_; }
  // A replay's token-layers (state/replay_plan.h) are taken for as dear as a prefill's, though some
  // need neither attention nor experts.
  double ReplaySeconds(int64_t token_layers, int64_t layers) const {
    return static_cast<double>(token_layers) / static_cast<double>(layers) * per_token_;
  }
  double FetchSeconds(uint64_t host_bytes, uint64_t disk_bytes) const;

 private:
  // A new measurement weighs a quarter: one stall does not switch the cache off, a slow disk does.
  static constexpr double kWeight = 0.25;
  static constexpr double kFixedSeconds = 1e-3;  // a few round trips
  double per_token_ = 1e-3;
  double per_host_byte_ = 1e-10;  // verified where it lies: 10 GB/s
  double per_disk_byte_ = 1e-9;   // 1 GB/s
  bool prefill_seen_ = false;
};

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_RESUME_COST_MODEL_H_
