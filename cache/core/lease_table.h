// lease_table.h: which readers hold which entries, and until when.
//
// Threads:   externally synchronised (the core's index mutex).
// Ownership: a Lease owns its pins; what it counts in the index is given back by whoever takes it
// out of the table. Units:     nanoseconds of Clock.
#ifndef CAIRN_CACHE_CORE_LEASE_TABLE_H_
#define CAIRN_CACHE_CORE_LEASE_TABLE_H_

#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "cache/core/cache_core.h"
#include "cache/core/gpu_copies.h"
#include "cache/core/prefix_index.h"
#include "store/tier/host_tier.h"

namespace cairn::cache {

struct Lease {
  SessionId session = 0;
  int64_t deadline_nanos = 0;
  uint64_t bytes = 0;  // of the arena, counted in the session
  std::vector<EntryRef> entries;
  store::HostPins pins;
  GpuLease gpu;
};

class LeaseTable {
 public:
  void Add(LeaseId id, Lease lease) {
    deadlines_.emplace(lease.deadline_nanos, id);
    leases_.emplace(id, std::move(lease));
  }
  const Lease* Find(LeaseId id) const {
    const auto it = leases_.find(id);
    return it == leases_.end() ? nullptr : &it->second;
  }
  std::optional<Lease> Take(LeaseId id) {
    const auto it = leases_.find(id);
    if (it == leases_.end()) return std::nullopt;
    deadlines_.erase({it->second.deadline_nanos, id});
    Lease lease = std::move(it->second);
    leases_.erase(it);
    return lease;
  }
  // One that ended by `now`; 0 when none did.
  LeaseId Expired(int64_t now_nanos) const {
    return deadlines_.empty() || deadlines_.begin()->first > now_nanos ? 0
                                                                       : deadlines_.begin()->second;
  }
  uint64_t size() const { return leases_.size(); }

 private:
  absl::flat_hash_map<LeaseId, Lease> leases_;
  std::set<std::pair<int64_t, LeaseId>> deadlines_;
};

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_CORE_LEASE_TABLE_H_
