// counters.h: what the core counts. Names carry their unit; List() gives them to `cairnctl stats`
// in this order.
//
// Threads: any (relaxed atomics: each figure is right, a snapshot of several may straddle an
// event).
#ifndef CAIRN_CACHE_CORE_COUNTERS_H_
#define CAIRN_CACHE_CORE_COUNTERS_H_

#include <atomic>
#include <cstdint>
#include <vector>

#include "cache/client/cache_api.h"

namespace cairn::cache {

class Counter {
 public:
  void Add(uint64_t amount = 1) { value_.fetch_add(amount, std::memory_order_relaxed); }
  uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

struct Counters {
  Counter match_calls, match_asked_blocks, match_found_blocks, match_leased_calls;
  Counter fetch_calls, fetch_rows_entries, fetch_checkpoint_entries;
  Counter fetch_host_bytes, fetch_disk_bytes, fetch_shortened_calls, fetch_refused_calls;
  Counter reserve_go_entries, reserve_exists_entries, reserve_wait_entries, reserve_waited_calls;
  Counter reservations_expired, reservations_aborted, reservations_handed_over;
  Counter commit_entries, commit_bytes, commit_refused_entries, commit_mismatched_entries;
  Counter leases_expired, sessions_opened, sessions_ended_holding;
  // Copies that did not match their checksums, each once, whoever saw it.
  Counter damaged_host_rows, damaged_host_checkpoints, damaged_disk_rows, damaged_disk_checkpoints;
  Counter damaged_gpu_rows, damaged_gpu_checkpoints;
  Counter healed_disk_entries;  // damaged there, and written again from host memory
  Counter lost_entries;         // indexed, but a tier no longer had them
  Counter disk_read_failures;
  Counter verified_entries, verified_bytes;  // by scrubbing and by operators
  Counter evicted_host_entries, evicted_host_bytes, evicted_host_unsaved_entries;
  Counter evicted_disk_entries, evicted_disk_bytes;
  Counter expired_entries;  // checkpoints past their TTL, taken out
  Counter disk_written_entries, disk_written_bytes, disk_write_failed_entries, disk_full_events;
  Counter promoted_entries, promoted_bytes, joined_reads;
  Counter startup_entries, startup_orphan_entries, startup_unreadable_entries;

  std::vector<NamedCount> List() const;
};

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_CORE_COUNTERS_H_
