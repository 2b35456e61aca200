// residency.h: the index and the two tiers, kept in step. What the index says is present can be
// read; room is made, by eviction, before bytes are taken.
//
// Locks, in this order: disk_mutex, then mutex.
//   mutex       guards the index and every table of the core. No I/O, no copying, no checksum under
//   it. disk_mutex  is held across [decide, Put or Erase, record] so that a late erase cannot hit a
//   newer put of the same key.
//               Never held while waiting for a client. The writer holds it for batch after batch,
//               and lets go of it where somebody else wants it (DiskLock).
// Threads:   any; each method says which locks it needs.
// Ownership: the tiers and the clock outlive it.
// Units:     bytes.
#ifndef CAIRN_CACHE_CORE_RESIDENCY_H_
#define CAIRN_CACHE_CORE_RESIDENCY_H_

#include <atomic>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "cache/core/counters.h"
#include "cache/core/departure.h"
#include "cache/core/prefix_index.h"
#include "store/base/mutex.h"
#include "store/tier/disk_tier.h"
#include "store/tier/host_tier.h"

namespace cairn::cache {

// When to ask again for what leases hold: about as long as an engine holds one, until its first
// token.
inline constexpr absl::Duration kLeaseComeAgain = absl::Milliseconds(50);

class Residency {
 public:
  Residency(store::HostTier& host_tier, store::DiskTier* disk_tier, Clock& clock,
            const PrefixIndex::Options& options)
      : host(host_tier),
        disk(disk_tier),
        index(clock, options),
        weighs_(index.weighs(Place::kDisk)) {
    if (disk == nullptr) return;
    disk->OnWithdrawn(
        [this](const EntryKey& key, const absl::Status& why) { Withdrawn(key, why); });
  }

  ~Residency() {
    StopLoading();
    if (disk != nullptr) disk->OnWithdrawn(nullptr);
  }

  // Indexes what the disk holds, in the background or (tests, simulation) before it returns.
  // Entries that could never be matched (attributes unreadable, or rows of an ancestor missing) are
  // erased and counted. Called once, before all else.
  void StartLoading(bool background) ABSL_LOCKS_EXCLUDED(mutex, disk_mutex);
  // Ends it early: what is not indexed by then is found by BringIn.
  void StopLoading() ABSL_LOCKS_EXCLUDED(mutex, disk_mutex);
  // What is decided by the whole of the index (eviction from disk, operators' lists) waits for it.
  void AwaitLoaded() ABSL_LOCKS_EXCLUDED(mutex);
  // Whether the disk may hold entries that are not indexed yet.
  bool incomplete() const { return incomplete_.load(std::memory_order_acquire); }
  // Looks the blocks of this chain up in the disk's catalog as far as the index lacks them, up to
  // the first whose rows are not there: the cost is that of the chain. REQUIRES: incomplete().
  void BringIn(const Digest& root, std::span<const Digest> chain) ABSL_LOCKS_EXCLUDED(mutex);

  // Room in the arena, evicting as needed. RESOURCE_EXHAUSTED: all that is left is held; says how
  // much was asked.
  absl::StatusOr<store::HostRoom> ReserveHost(uint64_t bytes, size_t parts)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);
  // Publishes a filled room and records it.
  absl::Status PublishHost(EntryRef ref, EntryMeta meta, store::HostRoom room)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);
  // The entry in host memory, pinned; nullopt if it is not there (the index is mended and the loss
  // counted).
  std::optional<store::HostPin> PinHost(EntryRef ref) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);
  // Takes the entry out of host memory. Readers keep their pinned bytes. Does not prune.
  // `evicted`: to make room.
  void DropHost(EntryRef ref, bool evicted = false) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);
  // The disk no longer has the entry, or is about to lose it. Does not prune.
  void DropDisk(EntryRef ref, bool evicted = false) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);

  // Takes the pinned copy, which is damaged, out of host memory and counts it. False: somebody did
  // so before, and what is there by now is another copy.
  bool DropDamagedHost(EntryRef ref, const store::HostPin& pin, const absl::Status& why)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);
  // The disk's copy is not what it should be, or is not there: counted; the index forgets it; a
  // copy in host memory is written again. The disk tier tells of all that it finds itself.
  void Withdrawn(const EntryKey& key, const absl::Status& why) ABSL_LOCKS_EXCLUDED(mutex);
  // The same of an entry that is whole and another one than its key says.
  void EraseForeign(const EntryKey& key, const absl::Status& why)
      ABSL_LOCKS_EXCLUDED(mutex, disk_mutex);
  // For those that a read did not find, though the index said so: mends the index.
  void ForgetIfGone(std::span<const EntryKey> keys) ABSL_LOCKS_EXCLUDED(mutex, disk_mutex);

  // Evicts from disk, in the policy's order, until `bytes` of payload went or nothing more may
  // go. Returns the bytes.
  absl::StatusOr<uint64_t> EvictFromDisk(uint64_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(disk_mutex)
      ABSL_LOCKS_EXCLUDED(mutex);
  // Gives one segment back, what is worth moving apart: the one by which least is lost. False: none
  // of those looked at may go. REQUIRES: weighs_.
  absl::StatusOr<bool> ReclaimWorstSegment() ABSL_EXCLUSIVE_LOCKS_REQUIRED(disk_mutex)
      ABSL_LOCKS_EXCLUDED(mutex);
  // Put with room made for it. RESOURCE_EXHAUSTED: nothing more may be evicted, or the file system
  // itself is full.
  absl::Status PutOnDisk(std::span<const store::DiskPut> puts)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(disk_mutex) ABSL_LOCKS_EXCLUDED(mutex);

  // Whether a DiskLock waits.
  bool disk_is_wanted() const { return disk_wanted_ > 0; }

  // Tells the operator of a copy that is not used any more.
  static void SayWithdrawn(const EntryKey& key, const char* where, const absl::Status& why);
  // A part of `meta` that does not match `payload`; nullopt when all do.
  static std::optional<size_t> DamagedPart(const EntryMeta& meta, std::span<const uint8_t> payload);

  store::HostTier& host;
  store::DiskTier* const disk;  // null: no disk
  Mutex disk_mutex;
  Mutex mutex;
  PrefixIndex index ABSL_GUARDED_BY(mutex);
  Counters counters;
  // Queues the write to disk of an entry that lies in host memory. Under `mutex`. Set before all
  // else.
  std::function<void(EntryRef)> write_to_disk;
  // Told of an entry that has left host memory and disk, under `mutex`. Set before all else, or
  // null.
  std::function<void(EntryRef)> left_both;

 private:
  void TellIfGone(EntryRef ref) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    if (left_both != nullptr && !ref->present()) left_both(ref);
  }
  struct Found {
    EntryKey key;
    EntryAttributes attributes;
    uint64_t bytes = 0;
  };
  static constexpr double kNeverWeighed = std::numeric_limits<double>::infinity();
  // What is known of a segment that may be reclaimed.
  struct Roster {
    std::vector<uint32_t> entries;  // numbers of PrefixIndex::SetSegment, 4 B for each on disk
    bool whole = false;             // as far as the tier tells, all that lives there
    uint64_t weighed = 0;           // when, in calls; 0: not yet
    double lost_per_byte = kNeverWeighed;  // as weighed then
  };
  std::vector<store::DiskSegment> ChooseToWeigh(std::vector<store::DiskSegment> segments)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(disk_mutex);
  absl::Status Scan(const store::DiskSegment& segment) ABSL_EXCLUSIVE_LOCKS_REQUIRED(disk_mutex)
      ABSL_LOCKS_EXCLUDED(mutex);
  std::optional<Departure> Plan(const store::DiskSegment& segment)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(disk_mutex, mutex);
  absl::StatusOr<bool> EvictSegment(const store::DiskSegment& segment)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(disk_mutex) ABSL_LOCKS_EXCLUDED(mutex);
  // False: the index did not know of it there.
  bool ForgetOnDisk(const EntryKey& key) ABSL_LOCKS_EXCLUDED(mutex);
  // Takes the entry out of the index, to make room on disk. Does not prune.
  EntryKey EvictOne(EntryRef ref) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);
  absl::Status EraseEvicted(std::span<const EntryKey> keys)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(disk_mutex) ABSL_LOCKS_EXCLUDED(mutex);
  void Load() ABSL_LOCKS_EXCLUDED(mutex, disk_mutex);
  // False: to stop.
  bool Index(std::span<const Found> found) ABSL_LOCKS_EXCLUDED(mutex);
  void IndexOne(const Found& found) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);
  // Once all is indexed: forgets what cannot be reached.
  void EraseUseless() ABSL_LOCKS_EXCLUDED(mutex, disk_mutex);

  friend class DiskLock;
  std::atomic<int> disk_wanted_{0};
  const bool weighs_;  // the disk's policy
  std::atomic<bool> incomplete_{false};
  bool loading_ ABSL_GUARDED_BY(mutex) = false;
  bool stop_loading_ ABSL_GUARDED_BY(mutex) = false;
  CondVar loading_ended_;
  // While incomplete: entries that went from the disk, which an older look at the catalog may still
  // show.
  absl::flat_hash_set<EntryKey> gone_ ABSL_GUARDED_BY(mutex);
  std::vector<EntryKey> unreadable_ ABSL_GUARDED_BY(mutex);
  std::map<uint64_t, Roster> rosters_ ABSL_GUARDED_BY(disk_mutex);  // by segment
  uint64_t weighings_ ABSL_GUARDED_BY(disk_mutex) = 0;
  std::thread loader_;
};

// Holds disk_mutex, for all but the writer, who lets it in after the batch it is at.
class ABSL_SCOPED_LOCKABLE DiskLock {
 public:
  explicit DiskLock(Residency& residency) ABSL_EXCLUSIVE_LOCK_FUNCTION(residency.disk_mutex)
      : residency_(residency) {
    ++residency_.disk_wanted_;
    residency_.disk_mutex.Lock();
    --residency_.disk_wanted_;
  }
  ~DiskLock() ABSL_UNLOCK_FUNCTION() { residency_.disk_mutex.Unlock(); }
  DiskLock(const DiskLock&) = delete;
  DiskLock& operator=(const DiskLock&) = delete;

 private:
  Residency& residency_;
};

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_CORE_RESIDENCY_H_
