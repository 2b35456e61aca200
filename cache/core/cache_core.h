// cache_core.h: the daemon without its sockets. Prefix index, leases, reservations, movement
// between tiers, eviction. The gRPC service (cache/service/) and LocalCache (core/local_cache.h)
// are thin shells over it.
//
// Sessions: everything a client holds (leases, reservations, staging) hangs on a session;
// CloseSession frees all of it at once, which is what happens when a client vanishes, but for
// reservations that a Commit is at work on: it goes on, and ends them. Leases also end at their
// deadline. Eviction: whole entries, in the order of a policy (cache/policy); a
// parent's rows never before its children's; leased, pinned and reserved entries stay. Both tiers
// stay under their limits at every instant: room is made before bytes are taken.
//
// Threads: all methods from any thread. One mutex guards the index; no I/O, no copying, no checksum
// under it. Errors:  store/base/status.h; INVALID_ARGUMENT names the field and its bound.
#ifndef CAIRN_CACHE_CORE_CACHE_CORE_H_
#define CAIRN_CACHE_CORE_CACHE_CORE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "cache/client/cache_api.h"
#include "cache/policy/eviction_policy.h"
#include "store/base/clock.h"
#include "store/base/random.h"
#include "store/device/gpu_memory.h"
#include "store/tier/disk_tier.h"
#include "store/tier/gpu_tier.h"
#include "store/tier/host_tier.h"

namespace cairn::cache {

class Waiter;  // core/waiter.h

using SessionId = uint64_t;
using LeaseId = uint64_t;

// One fetched entry as the core hands it out: in the arena, pinned by the lease. If the lease ends
// meanwhile the spans stay readable, but may show another entry.
struct LeasedEntry {
  EntryKey key;
  uint64_t arena_offset = 0;
  std::span<const uint8_t> payload;
  std::span<const uint64_t> part_xxh3;  // behind the payload; sizes are the layout's
  uint64_t table_xxh3 = 0;              // of part_xxh3's bytes, as they were put
};

struct LeasedPrefix {
  LeaseId lease = 0;
  std::vector<LeasedEntry> rows;
  std::optional<LeasedEntry> checkpoint;
  uint64_t host_bytes = 0;
  uint64_t disk_bytes = 0;
  // For a session that attached the GPU's pool: where the same bytes lie in it too, held by the
  // same lease: of the leading rows, as many as do, and, if all do, perhaps of the checkpoint.
  std::vector<uint64_t> gpu_offsets;
};

struct CoreMatch {
  MatchResult found;
  std::optional<LeasedPrefix> leased;
};

struct CoreCommitItem {
  uint64_t reservation = 0;
  std::span<const uint8_t>
      payload;  // stays valid and may change under us until Commit returns; the copy is verified
  std::vector<EntryPart> parts;
};

// For the admin service.
struct ListedPrefix {
  Digest digest;  // of the block
  Digest namespace_root;
  uint32_t index = 0;
  bool rows_host = false, rows_disk = false, checkpoint_host = false, checkpoint_disk = false;
  bool rows_gpu = false, checkpoint_gpu = false;  // copies beside the others
  bool pinned = false;
  uint32_t leases = 0;
  int64_t last_used_wall_micros = 0;
  uint64_t bytes = 0;
};

struct ListFilter {
  std::optional<Digest> namespace_root = {};
  std::optional<Digest> prefix = {};  // this block and all its descendants
  std::optional<absl::Duration> unused_for = {};
  bool leaves_only = false;
  uint32_t limit = 1000;  // of List; Evict and Verify take all that match
};

struct VerifyOptions {
  ListFilter filter = {};
  uint64_t bytes_per_second = 0;  // never more, but for one entry; 0: as fast as it goes
};

struct VerifyReport {
  uint64_t total_entries = 0;  // that there were when it began
  uint64_t total_bytes = 0;    // of all tiers' copies
  uint64_t entries = 0;        // looked at so far
  uint64_t bytes = 0;
  // Copies that were damaged or not there; withdrawn and counted.
  uint64_t damaged_host = 0, damaged_disk = 0, damaged_gpu = 0;
  // Of these, copies whose entry has a good one in host memory or on disk, which stands in and is
  // written to disk again.
  uint64_t healed = 0;
  uint64_t unreadable = 0;  // copies that the device did not give; they stay
  absl::Duration elapsed;

  uint64_t damaged() const { return damaged_host + damaged_disk + damaged_gpu; }
};

class CacheCore {
 public:
  struct Options {
    std::string default_tenant_key = {};                  // secret; mixed into every root
    std::map<std::string, std::string> tenant_keys = {};  // tenant name -> secret
    CheckpointPolicy policy = {};                         // of every namespace
    // Of PolicyNames(). On disk room comes back by segments: a policy that weighs entries decides
    // which segment, and what of it is kept (departure.h).
    std::string eviction_host = kDefaultPolicy, eviction_disk = kDefaultPolicy;
    // A pool in GPU memory for copies of what those who map it lease again and again
    // (gpu_copies.h). Null: none. Both outlive the core.
    store::Gpu* gpu = nullptr;
    store::GpuTier* gpu_tier = nullptr;
    std::string eviction_gpu = kDefaultPolicy;
    absl::Duration lease_max = absl::Minutes(10);
    absl::Duration reservation_max = absl::Minutes(30);
    // For tests and simulation. Null: waits against `clock` in real time. False: entries are
    // written to disk only inside durable commits, Flush and the destructor, by their caller's
    // thread, and the eviction policies learn only when they are asked.
    Waiter* waiter = nullptr;
    bool background_writes = true;
    // False: Create returns when all that the disk holds is indexed. True: that goes on beside the
    // first calls, which look up for themselves what they need.
    bool background_load = true;
    // Verifies all that is stored, round after round: so many bytes a second at most (0: never),
    // and no round begins sooner after the one before it.
    uint64_t scrub_bytes_per_second = 0;
    absl::Duration scrub_round_min = absl::Hours(1);
  };
  // `disk` may be null: host tier only. Rebuilds the index by disk->Survey. Tiers and clock outlive
  // the core.
  static absl::StatusOr<std::unique_ptr<CacheCore>> Create(const Options& options,
                                                           store::HostTier& host,
                                                           store::DiskTier* disk, Clock& clock,
                                                           Random& random);
  virtual ~CacheCore();  // waits for background writes to disk

  // ---- engines ----
  // FAILED_PRECONDITION: layout version not kLayoutVersion (message names both). PERMISSION_DENIED:
  // unknown tenant.
  virtual absl::StatusOr<SessionId> OpenSession(const NamespaceSpec& spec,
                                                Registration* registration) = 0;
  virtual void CloseSession(SessionId session) = 0;
  virtual absl::StatusOr<MatchResult> Match(SessionId session, std::span<const Digest> chain) = 0;
  // Match, and if the deepest checkpoint and all rows before it lie in host memory, a lease of them
  // as by Fetch. Never waits, never reads: else, or at the session's limit of leases, there is
  // none.
  // `lease`: as in FetchRequest.
  virtual absl::StatusOr<CoreMatch> MatchAndLease(SessionId session, std::span<const Digest> chain,
                                                  LeaseId lease) = 0;
  absl::StatusOr<CoreMatch> MatchAndLease(SessionId session, std::span<const Digest> chain) {
    return MatchAndLease(session, chain, 0);
  }
  // A shorter prefix, or no checkpoint, when entries went meanwhile or failed their checksum.
  // RESOURCE_EXHAUSTED names the bytes needed and the arena's size: prefill instead. lease is 0
  // when nothing is held.
  virtual absl::StatusOr<LeasedPrefix> Fetch(SessionId session, const FetchRequest& request) = 0;
  virtual absl::Status Release(SessionId session, LeaseId lease) = 0;
  virtual absl::StatusOr<std::vector<ReserveResult>> Reserve(SessionId session,
                                                             std::span<const ReserveItem> items,
                                                             absl::Duration wait) = 0;
  // Items may come in any order; each ends its reservation, whatever its status. Per item: ABORTED,
  // the reservation is not this session's or ended; INVALID_ARGUMENT, parts are not the layout's;
  // DATA_LOSS, a part differs from its checksum; RESOURCE_EXHAUSTED, no room (or, durable, stored
  // in host memory only); FAILED_PRECONDITION, what it builds on (its parent's rows; for a
  // checkpoint its own block's rows) is not stored. The call fails with FAILED_PRECONDITION for
  // durable commits without a disk.
  virtual absl::StatusOr<std::vector<absl::Status>> Commit(SessionId session,
                                                           std::span<const CoreCommitItem> items,
                                                           bool durable) = 0;
  virtual absl::Status Abort(SessionId session, std::span<const uint64_t> reservations) = 0;
  // The GPU's pool, for a process that will map it. From here on what the session leases comes
  // there, is held there too and said where (LeasedPrefix). FAILED_PRECONDITION: there is none.
  virtual absl::StatusOr<store::GpuExport> AttachGpu(SessionId session) = 0;

  // ---- operators ----
  virtual std::vector<NamedCount> Stats() = 0;
  virtual std::vector<ListedPrefix> List(const ListFilter& filter) = 0;
  // Returns evicted entries' count; leased and pinned ones, and the few that are being written or
  // verified, stay and are counted in *kept.
  virtual absl::StatusOr<uint64_t> Evict(const ListFilter& filter, uint64_t* kept) = 0;
  // Pins or unpins the prefix ending at `digest`: its rows, all its ancestors' rows, and its
  // checkpoint. Pins are counted and survive no restart. NOT_FOUND: no such block.
  // FAILED_PRECONDITION: unpinned more often than pinned.
  virtual absl::Status Pin(const Digest& digest, bool pin) = 0;
  // Re-reads every entry that matches, in all tiers, and withdraws what is damaged. `progress`
  // (may be null) is told about once a second; CANCELLED when it returns false.
  virtual absl::StatusOr<VerifyReport> Verify(
      const VerifyOptions& options, const std::function<bool(const VerifyReport&)>& progress) = 0;
  // Waits until all committed entries are on disk (or the deadline). Tries those again that the
  // disk refused before.
  virtual absl::Status Flush(absl::Duration deadline) = 0;

  virtual int arena_fd() const = 0;
  virtual uint64_t arena_bytes() const = 0;
  virtual uint64_t gpu_bytes() const = 0;  // of the pool; 0: none, or the GPU was given up
};

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_CORE_CACHE_CORE_H_
