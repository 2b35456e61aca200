// cost_model.h: what loading a prefix costs, and computing it. Learned while running: seconds a
// prefilled token, which grow with its position, and seconds a fetched byte of each tier. Until
// something was measured the cautious guesses below hold.
//
// Threads: any. Units: seconds, tokens, positions, bytes.
#ifndef CAIRN_ENGINE_RESUME_COST_MODEL_H_
#define CAIRN_ENGINE_RESUME_COST_MODEL_H_

#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "cache/client/cache_api.h"
#include "engine/state/replay_plan.h"
#include "store/base/mutex.h"

namespace cairn::engine {

// A line through what a token cost at its position; older measurements fade. Externally
// synchronised.
class TokenCost {
 public:
  void Observe(double position, double seconds);
  // Of the tokens at [from, to).
  double Seconds(int64_t from, int64_t to) const;

 private:
  double weight_ = 0;
  double position_ = 0, seconds_ = 0;  // means
  double spread_ = 0, common_ = 0;     // variance of positions; covariance
};

class CostModel {
 public:
  // `tokens` from position `from` on.
  void ObservePrefill(int64_t from, int64_t tokens, double seconds);
  // host and disk bytes of one fetch, and how long it took with verifying and restoring.
  void ObserveFetch(uint64_t host_bytes, uint64_t disk_bytes, double seconds);
  // A fetch was too dear. In the long run that is doubted: a stall would else be believed for ever.
  void ObserveDeclined();

  double PrefillSeconds(int64_t from, int64_t to) const;
  // A replay's token-layers are taken for as dear as a prefill's, though some need neither
  // attention nor experts.
  double ReplaySeconds(const ReplayPlan& plan) const;
  double FetchSeconds(uint64_t host_bytes, uint64_t disk_bytes) const;
  // How long to wait for a prefix of so many tokens: twice what computing it would take, but never
  // under half a second.
  absl::Duration FetchPatience(int64_t tokens) const;

 private:
  struct ByteCost {
    const double guess;
    double seconds = guess;
    bool measured = false;

    void Observe(double a_byte, uint64_t bytes);
    void Doubt();
  };
  static constexpr double kFixedSeconds = 1e-3;  // a few round trips

  mutable Mutex mutex_;
  TokenCost prefill_ ABSL_GUARDED_BY(mutex_);
  ByteCost host_ ABSL_GUARDED_BY(mutex_){.guess = 1e-10};  // verified where it lies: 10 GB/s
  ByteCost disk_ ABSL_GUARDED_BY(mutex_){.guess = 1e-9};   // 1 GB/s
};

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_RESUME_COST_MODEL_H_
