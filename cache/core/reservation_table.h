// reservation_table.h: who is making which entry. Single-flight: one maker a key; others may wait,
// and when the maker gives up, the longest waiting one takes over.
//
// A reservation also keeps the rows that its entry builds on from being evicted
// (PrefixIndex::Await).
//
// Threads:   externally synchronised (the core's index mutex); waiting is the caller's, on
// KeyWait::signal. Ownership: reservations are the table's; a KeyWait is the waiting caller's and
// leaves the table before it dies. Units:     nanoseconds of Clock.
#ifndef CAIRN_CACHE_CORE_RESERVATION_TABLE_H_
#define CAIRN_CACHE_CORE_RESERVATION_TABLE_H_

#include <functional>
#include <list>
#include <set>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "cache/core/cache_core.h"
#include "cache/core/prefix_index.h"
#include "store/base/mutex.h"

namespace cairn::cache {

struct Reservation {
  SessionId session = 0;
  ReserveItem item;
  int64_t deadline_nanos = 0;
  bool committing = false;  // a Commit call is at work on it and will end it
};

// One caller waiting for one key.
struct KeyWait {
  SessionId session = 0;
  ReserveItem item;
  CondVar signal;
  uint64_t granted = 0;        // the reservation handed to it
  bool session_ended = false;  // wake up and leave
};

enum class ReservationEnd { kCommitted, kGivenUp };

class ReservationTable {
 public:
  ReservationTable(PrefixIndex& index, std::function<uint64_t()> new_id, int64_t lifetime_nanos)
      : index_(index), new_id_(std::move(new_id)), lifetime_nanos_(lifetime_nanos) {}

  // nullptr: none.
  Reservation* Find(uint64_t id);
  // 0: nobody makes it.
  uint64_t MakerOf(const EntryKey& key) const;
  // REQUIRES: MakerOf(item.key) == 0.
  uint64_t Make(SessionId session, const ReserveItem& item, int64_t now_nanos);
  // kCommitted wakes all waiters; kGivenUp hands the key to the first of them. Returns whether it
  // was handed over.
  bool End(uint64_t id, ReservationEnd how, int64_t now_nanos);

  void StartWait(KeyWait* wait);
  void StopWait(KeyWait* wait);

  // All of a session end; those being committed are left to their Commit. Its waiters are told.
  struct EndedSession {
    size_t ended = 0, handed_over = 0;  // reservations
  };
  EndedSession EndSession(SessionId session, int64_t now_nanos);
  size_t CountOf(SessionId session) const;
  // One past its deadline and not being committed; 0 when none.
  uint64_t Expired(int64_t now_nanos) const;
  uint64_t size() const { return reservations_.size(); }

 private:
  static const Digest& FoundationOf(const ReserveItem& item) {
    return item.key.kind == EntryKind::kRows ? item.parent : item.key.digest;
  }

  PrefixIndex& index_;
  const std::function<uint64_t()> new_id_;
  const int64_t lifetime_nanos_;
  absl::flat_hash_map<uint64_t, Reservation> reservations_;
  absl::flat_hash_map<EntryKey, uint64_t> makers_;
  absl::flat_hash_map<EntryKey, std::list<KeyWait*>> waits_;
  absl::flat_hash_map<SessionId, absl::flat_hash_set<uint64_t>> by_session_;
  std::set<std::pair<int64_t, uint64_t>> deadlines_;
};

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_CORE_RESERVATION_TABLE_H_
