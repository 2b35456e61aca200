#include "cache/core/tier_order.h"

#include <algorithm>

namespace cairn::cache {

bool TierOrder::Tell(size_t uses, void (EvictionPolicy::*how)(PolicyHandle)) {
  const size_t end = told_ + std::min(uses, noted_uses());
  while (told_ < end) (policy_.get()->*how)(used_[told_++]);
  // A queue that never runs empty is moved up once in a while.
  if (told_ == used_.size() || told_ >= kNotedMax) {
    used_.erase(used_.begin(), used_.begin() + static_cast<ptrdiff_t>(told_));
    told_ = 0;
  }
  return !used_.empty();
}

uint32_t TierOrder::Add(EntryNumber entry, EntryFacts facts) {
  Tell();
  uint32_t slot = 0;
  if (free_.empty()) {
    slot = static_cast<uint32_t>(entries_.size());
    entries_.push_back(entry);
  } else {
    slot = free_.back();
    free_.pop_back();
    entries_[slot] = entry;
  }
  if (facts.parent == 0) facts.parent = kNoHandle;
  policy_->Inserted(slot, facts);
  return slot;
}

void TierOrder::Remove(uint32_t slot, bool evicted) {
  Tell();
  policy_->Removed(slot, evicted);
  if (slot < groups_.size()) groups_[slot] = 0;
  free_.push_back(slot);
}

std::optional<EntryNumber> TierOrder::Victim() {
  Tell();
  const std::optional<PolicyHandle> slot = policy_->Victim();
  return slot.has_value() ? std::optional(entries_[*slot]) : std::nullopt;
}

double TierOrder::Value(uint32_t slot) {
  Tell();
  return policy_->Value(slot);
}

void TierOrder::SetGroup(uint32_t slot, uint32_t group) {
  if (slot >= groups_.size()) groups_.resize(entries_.size());
  groups_[slot] = group;
}

uint64_t TierOrder::memory_bytes() const {
  return (entries_.capacity() + groups_.capacity() + free_.capacity()) * sizeof(uint32_t) +
         policy_->memory_bytes();
}

}  // namespace cairn::cache
