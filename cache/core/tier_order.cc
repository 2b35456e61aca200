#include "cache/core/tier_order.h"

namespace cairn::cache {

void TierOrder::Tell() {
  for (const uint32_t slot : used_) policy_->Used(slot);
  used_.clear();
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
