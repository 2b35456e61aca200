// hazard_policy.h: the policy of the daemon: evict what promises the fewest hits per byte and time.
//
// Victim weighs a random sample of the evictable entries, and the newest of them, by
//   hit density (reuse_model.h) * tokens saved by a hit / bytes
// and names the least. The newest always takes part, so a new entry may be the first to go. What a
// key did before it was evicted is remembered for a while (reuse_history.h), so one that comes back
// is not taken for new.
//
// Threads, ownership, units, errors: as in eviction_policy.h.
#ifndef CAIRN_CACHE_POLICY_HAZARD_POLICY_H_
#define CAIRN_CACHE_POLICY_HAZARD_POLICY_H_

#include <algorithm>
#include <optional>
#include <vector>

#include "cache/policy/evictable_set.h"
#include "cache/policy/eviction_policy.h"
#include "cache/policy/reuse_history.h"
#include "cache/policy/reuse_model.h"

namespace cairn::cache {

class HazardPolicy final : public EvictionPolicy {
 public:
  // REQUIRES: options.random outlives this.
  explicit HazardPolicy(const PolicyOptions& options);

  void Inserted(PolicyHandle handle, const EntryFacts& facts) override;
  void Used(PolicyHandle handle) override;
  void UsedUnlearned(PolicyHandle handle) override;
  void SetWorth(PolicyHandle handle, uint64_t bytes, uint64_t tokens) override;
  void SetEvictable(PolicyHandle handle, bool evictable) override;
  std::optional<PolicyHandle> Victim() override;
  bool weighs() const override { return true; }
  double Value(PolicyHandle handle) const override;
  void Removed(PolicyHandle handle, bool evicted) override;
  uint64_t memory_bytes() const override {
    return states_.capacity() * sizeof(State) + evictable_.memory_bytes() + kHistoryBytesMax;
  }

 private:
  struct State {
    uint32_t fingerprint = 0;
    uint32_t touched = 0;
    ReuseTraits traits;
    uint32_t position = EvictableSet::kNowhere;
  };
  static_assert(sizeof(State) == 16, "a daemon keeps tens of millions of these");

  ReuseTraits TraitsOfNew(const EntryFacts& facts) const;
  void Advance(State& state);
  void Touch(State& state);
  // A chain's blocks share their fate, so the deeper ones are watched ever more sparsely: a touch
  // of a million tokens' blocks costs not much more than one of a tenth of them.
  bool Watched(const State& state) const {
    const int sparser = std::max(0, static_cast<int>(state.traits.depth) - kDepthWatchedWhole);
    return (uint64_t{state.fingerprint} >> (sample_shift_ - sparser)) == 0;
  }
  auto Positions() {
    return [this](PolicyHandle handle) -> uint32_t& { return states_[handle].position; };
  }

  static constexpr int kDepthWatchedWhole = 8;  // octave of block index

  Random& random_;
  ReuseModel model_;
  ReuseHistory history_;
  const int sample_shift_;  // keys with no bits from here up are watched
  uint32_t now_ = 0;
  std::vector<State> states_;  // by handle
  EvictableSet evictable_;
  PolicyHandle newest_ = kNoHandle;
};

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_POLICY_HAZARD_POLICY_H_
