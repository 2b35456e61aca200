// tier_order.h: the entries of one tier, as its eviction policy (cache/policy) knows them.
//
// Each entry has a slot here, numbered densely, which is the policy's handle for it. The owner says
// which entries may go now; Victim answers with one of them.
//
// A use is only noted, so that a match of a million tokens does not pay for what the policy learns
// from it (about a microsecond each). Learn does that, a few at a time; at the latest the policy is
// told before it is asked or told anything else. Where too many are noted, it is told of the oldest
// and does not learn from them.
//
// Threads: externally synchronised (the core's index mutex). Ownership: the policy is this one's.
#ifndef CAIRN_CACHE_CORE_TIER_ORDER_H_
#define CAIRN_CACHE_CORE_TIER_ORDER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "cache/policy/eviction_policy.h"

namespace cairn::cache {

// An entry's number in the index: twice its block's, plus one for a checkpoint.
using EntryNumber = uint32_t;

class TierOrder {
 public:
  explicit TierOrder(std::unique_ptr<EvictionPolicy> policy) : policy_(std::move(policy)) {}

  // Returns its slot, never 0. It may not go until SetEvictable. `facts.parent` is a slot of this
  // order, or 0 for none.
  uint32_t Add(EntryNumber entry, EntryFacts facts);
  // `evicted`: as a victim, and so worth remembering.
  void Remove(uint32_t slot, bool evicted);
  void Used(uint32_t slot) {
    if (noted_uses() >= kNotedMax) Pass(2);
    used_.push_back(slot);
  }
  size_t noted_uses() const { return used_.size() - told_; }
  // From at most `uses` of those noted. Returns whether some are left.
  bool Learn(size_t uses) { return Tell(uses, &EvictionPolicy::Used); }
  // The same without learning, at a fraction of the cost.
  bool Pass(size_t uses) { return Tell(uses, &EvictionPolicy::UsedUnlearned); }
  void SetWorth(uint32_t slot, uint64_t bytes, uint64_t tokens) {
    policy_->SetWorth(slot, bytes, tokens);
  }
  void SetEvictable(uint32_t slot, bool evictable) { policy_->SetEvictable(slot, evictable); }
  std::optional<EntryNumber> Victim();
  bool weighs() const { return policy_->weighs(); }
  double Value(uint32_t slot);
  // A number that the owner gives the entry, until it is removed; 0: none.
  void SetGroup(uint32_t slot, uint32_t group);
  uint32_t GroupOf(uint32_t slot) const { return slot < groups_.size() ? groups_[slot] : 0; }
  EntryNumber EntryAt(uint32_t slot) const { return entries_[slot]; }
  uint64_t memory_bytes() const;

 private:
  static constexpr size_t kNotedMax = 1 << 15;
  // Learned from while somebody waits for the policy: a few milliseconds.
  static constexpr size_t kLearnWaitedFor = 1 << 12;

  bool Tell(size_t uses, void (EvictionPolicy::*how)(PolicyHandle));
  void Tell() {
    if (noted_uses() > kLearnWaitedFor) Pass(noted_uses() - kLearnWaitedFor);
    Learn(noted_uses());
  }

  std::unique_ptr<EvictionPolicy> policy_;
  std::vector<uint32_t> used_;  // slots, in order; the policy has been told of the first `told_`
  size_t told_ = 0;
  std::vector<EntryNumber> entries_ = std::vector<EntryNumber>(1);  // by slot
  std::vector<uint32_t> groups_;                                    // by slot, as far as given
  std::vector<uint32_t> free_;
};

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_CORE_TIER_ORDER_H_
