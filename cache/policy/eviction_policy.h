// eviction_policy.h: which entry of a tier goes first. One object decides for one tier.
//
// The owner (the prefix index) names its entries by handles, small dense numbers that it may use
// again after Removed(). It tells the policy what happens and which entries may go *now* (a leaf in
// that tier, held by nobody); the policy answers with one of those. Events of one prefix come from
// its root to its end; a match is Used() of every block, also of blocks that cannot go.
//
// Time is the number of touches (Inserted and Used) so far: no clock is asked, so the same events
// give the same victims, whatever the speed of replay. Randomness is injected.
//
// Threads:   externally synchronised.
// Ownership: nothing is kept of the owner's but `Random`, which must outlive the policy.
// Units:     bytes; tokens; touches.
// Errors:    none; a handle must be known (Inserted and not Removed) in every call but Inserted.
// Cost:      the policy of the daemon (`hazard`) keeps 16 bytes an entry and at most
//            kHistoryBytesMax beside them; Used is constant; Victim weighs a bounded sample. The
//            others are there to be compared with and may cost more.
#ifndef CAIRN_CACHE_POLICY_EVICTION_POLICY_H_
#define CAIRN_CACHE_POLICY_EVICTION_POLICY_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "store/base/entry.h"
#include "store/base/random.h"

namespace cairn::cache {

using PolicyHandle = uint32_t;
inline constexpr PolicyHandle kNoHandle = UINT32_MAX;
inline constexpr const char* kDefaultPolicy = "hazard";
inline constexpr size_t kHistoryBytesMax = size_t{1} << 20;

struct EntryFacts {
  uint64_t key = 0;  // the entry's identity, the same when it comes back: 8 bytes of its digest
  PolicyHandle parent = kNoHandle;  // what it stands on, if that is in the tier: the parent's rows
  uint32_t depth = 0;               // block index
  EntryKind kind = EntryKind::kRows;
  uint64_t bytes = 1;   // what keeping it costs
  uint64_t tokens = 1;  // what a hit on it saves
  bool found = false;   // there since before: nothing is known of its use
};

class EvictionPolicy {
 public:
  virtual ~EvictionPolicy() = default;
  // The entry is new in the tier, and not evictable until SetEvictable says so.
  virtual void Inserted(PolicyHandle handle, const EntryFacts& facts) = 0;
  // A request hit it.
  virtual void Used(PolicyHandle handle) = 0;
  // The same where there is no time to learn from it: it counts for the entry alone.
  virtual void UsedUnlearned(PolicyHandle handle) { Used(handle); }
  // What it costs and saves has changed: a checkpoint's rows are worth less once it has gone.
  virtual void SetWorth(PolicyHandle /*handle*/, uint64_t /*bytes*/, uint64_t /*tokens*/) {}
  virtual void SetEvictable(PolicyHandle handle, bool evictable) = 0;
  // The evictable entry that should go; nullopt: nothing is evictable. It stays until Removed().
  virtual std::optional<PolicyHandle> Victim() = 0;
  // Whether it says what entries are worth; else only Victim tells what goes.
  virtual bool weighs() const { return false; }
  // What keeping the entry now promises: tokens saved for each byte and touch. REQUIRES: weighs().
  virtual double Value(PolicyHandle /*handle*/) const { return 0; }
  // What it keeps, entries and history.
  virtual uint64_t memory_bytes() const { return 0; }
  // The entry has left the tier. `evicted`: as a victim, and so worth remembering.
  virtual void Removed(PolicyHandle handle, bool evicted) = 0;
};

struct PolicyOptions {
  uint64_t entries_expected = 1 << 16;  // about how many the tier will hold; sizes the sampling
  Random* random = nullptr;             // required by `hazard`
};

// The names that MakePolicy knows: fifo, lru, lfu, s3fifo, hazard.
std::vector<std::string> PolicyNames();
// INVALID_ARGUMENT: an unknown name; use one of PolicyNames().
absl::StatusOr<std::unique_ptr<EvictionPolicy>> MakePolicy(const std::string& name,
                                                           const PolicyOptions& options);

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_POLICY_EVICTION_POLICY_H_
