// reuse_history.h: a bounded memory of the last touch of keys, whether or not they are still
// cached, from which the model learns. Because what was evicted is watched like what was kept, what
// is learned does not depend on the capacity or on what the policy chose.
//
// A key has eight slots it may lie in; a new key takes an empty one or that of the longest
// untouched. At every watched touch a hand moves over some slots and reports the ages that were
// passed without reuse, so that entries that never come back are learned from too.
//
// Threads: externally synchronised. Units: touches (modulo 2^32). Keys are 32-bit fingerprints: two
// that agree make one wrong guess, never a wrong hit.
#ifndef CAIRN_CACHE_POLICY_REUSE_HISTORY_H_
#define CAIRN_CACHE_POLICY_REUSE_HISTORY_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cache/policy/reuse_model.h"

namespace cairn::cache {

class ReuseHistory {
 public:
  struct Record {
    uint32_t fingerprint = 0;
    uint32_t touched = 0;
    ReuseTraits traits;  // as after that touch; uses == 0: the slot is empty
    uint32_t reported_bins = 0;
  };
  static_assert(sizeof(Record) == 16);

  // `slots`: a power of two, at least kWays.
  ReuseHistory(size_t slots, ReuseModel& model);

  // nullptr: not remembered. The record stays valid until the next call of Touch.
  Record* Find(uint32_t fingerprint);
  // Reports the reuse, if the key is remembered, and starts its next wait with `traits`.
  void Touch(uint32_t fingerprint, uint32_t now, const ReuseTraits& traits);
  // Starts the key's next wait, if it is remembered, and reports nothing of the one before.
  void Restart(uint32_t fingerprint, uint32_t now, const ReuseTraits& traits);
  // Moves the hand.
  void Sweep(uint32_t now);

 private:
  static constexpr size_t kWays = 8;

  Record* SetOf(uint32_t fingerprint);
  void ReportIdle(Record& record, uint32_t age);

  ReuseModel& model_;
  std::vector<Record> records_;
  size_t hand_ = 0;
};

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_POLICY_REUSE_HISTORY_H_
