#include "cache/policy/reuse_history.h"

namespace cairn::cache {
namespace {

// How far the hand moves at a touch: once round in a thirty-second of what the memory holds, so
// that what never comes back is learned of almost as soon as what does.
constexpr size_t kSweepSlots = 32;

}  // namespace

ReuseHistory::ReuseHistory(size_t slots, ReuseModel& model) : model_(model), records_(slots) {}

ReuseHistory::Record* ReuseHistory::SetOf(uint32_t fingerprint) {
  return &records_[fingerprint % (records_.size() / kWays) * kWays];
}

ReuseHistory::Record* ReuseHistory::Find(uint32_t fingerprint) {
  Record* const set = SetOf(fingerprint);
  for (Record* record = set; record != set + kWays; ++record) {
    if (record->traits.uses != 0 && record->fingerprint == fingerprint) return record;
  }
  return nullptr;
}

void ReuseHistory::ReportIdle(Record& record, uint32_t age) {
  const auto passed = static_cast<uint32_t>(ReuseModel::BinOf(age));
  for (; record.reported_bins < passed; ++record.reported_bins) {
    model_.LearnIdle(record.traits, static_cast<int>(record.reported_bins));
  }
}

void ReuseHistory::Touch(uint32_t fingerprint, uint32_t now, const ReuseTraits& traits) {
  Record* record = Find(fingerprint);
  if (record != nullptr) {
    const uint32_t age = now - record->touched;
    ReportIdle(*record, age);
    model_.LearnReuse(record->traits, age);
  } else {
    Record* const set = SetOf(fingerprint);
    record = set;
    for (Record* other = set; other != set + kWays; ++other) {
      if (record->traits.uses == 0) break;
      if (other->traits.uses == 0 || now - other->touched > now - record->touched) record = other;
    }
  }
  *record = {fingerprint, now, traits, 0};
}

void ReuseHistory::Restart(uint32_t fingerprint, uint32_t now, const ReuseTraits& traits) {
  Record* const record = Find(fingerprint);
  if (record != nullptr) *record = {fingerprint, now, traits, 0};
}

void ReuseHistory::Sweep(uint32_t now) {
  for (size_t i = 0; i < kSweepSlots; ++i) {
    Record& record = records_[hand_];
    hand_ = (hand_ + 1) % records_.size();
    if (record.traits.uses != 0) ReportIdle(record, now - record.touched);
  }
}

}  // namespace cairn::cache
