// cache_api.h: what an inference engine calls. One object is one session with one namespace of a
// cache: over the wire (remote_cache.h) or in the same process (core/local_cache.h, for tests and
// embedding).
//
// Threads:   all methods from any thread; each blocks at most until its deadline. A dead, hung or
// lying daemon costs
//            one deadline: after UNAVAILABLE or DEADLINE_EXCEEDED the caller goes on without the
//            cache.
// Ownership: FetchedPrefix and StagingBuffer are holds; dropping them releases. They stay valid
// when the session's
//            connection dies (mapped bytes stay mapped), but a lost lease means they may be
//            overwritten: consumers verify checksums as they read (EntryView).
// Units:     blocks of kBlockTokens tokens; bytes; milliseconds.
// Errors:    store/base/status.h. A miss is a count of zero or a nullopt, never an error.
#ifndef CAIRN_CACHE_CLIENT_CACHE_API_H_
#define CAIRN_CACHE_CLIENT_CACHE_API_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "cache/client/layout.h"
#include "store/base/digest.h"
#include "store/base/entry.h"
#include "store/base/status.h"

namespace cairn::cache {

enum class Tier : uint8_t { kNone = 0, kHost = 1, kDisk = 2 };

// Which checkpoints are worth storing (design: checkpoint policies), and for how long. Combinable.
struct CheckpointPolicy {
  bool full = false;          // at every block's end
  uint32_t every_tokens = 0;  // at multiples of N tokens; 0: none. A multiple of kBlockTokens.
  bool branches = false;      // where prompts part: see MatchResult::branches
  bool ends = false;          // at the end of the prompt and of the output, rounded down to a block
  // None of them is the policy `zero`: rows only.

  // How long one of each is kept that is not used. Infinite: as long as there is room. Else whole
  // seconds.
  absl::Duration full_ttl = absl::InfiniteDuration();
  absl::Duration every_ttl = absl::InfiniteDuration();
  absl::Duration branches_ttl = absl::InfiniteDuration();
  absl::Duration ends_ttl = absl::InfiniteDuration();

  // Joined by "+": "full", "every:4096", "branches", "ends"; or "zero". Behind each, but not behind
  // zero, may stand ":ttl=" and a whole number of s, m, h or d: "every:4096:ttl=10m+ends:ttl=3d".
  static absl::StatusOr<CheckpointPolicy> Parse(const std::string& text);
  std::string ToString() const;
  // The same checkpoints, for ever: what an engine needs to know.
  CheckpointPolicy WithoutTtls() const;
  bool has_ttl() const { return !(*this == WithoutTtls()); }
  // Whether the end of block `blocks` (a count, >= 1) gets a checkpoint. `is_end`: it is the last
  // whole block of the prompt or of the output. `is_branch`: prompts part there.
  bool Wants(uint64_t blocks, bool is_end, bool is_branch) const;
  // How long the checkpoint there is kept. It is put down to what surely wants it, the longest of
  // `full`, `every` and, where prompts part, `branches`; else, as nobody remembers what was an end,
  // to `ends`, or without that to `branches`. Infinite for one that nothing wants any more.
  absl::Duration TtlAt(uint64_t blocks, bool is_branch) const;
  friend bool operator==(const CheckpointPolicy&, const CheckpointPolicy&) = default;
};

struct NamespaceSpec {
  LayoutDescriptor layout;
  std::string tenant;  // selects the tenant's secret in the daemon; empty: the default tenant
};

struct Registration {
  Digest root;              // parent of block 0
  CheckpointPolicy policy;  // what this namespace stores
  bool mapped = false;      // same host: fetched bytes are mapped, not copied
  bool gpu_mapped = false;  // and the daemon's pool in GPU memory too (EntryView::gpu)
};

struct CheckpointHit {
  uint32_t blocks = 0;  // resume at this many blocks
  Tier tier = Tier::kNone;
};

class FetchedPrefix;

struct MatchOptions {
  // If the deepest checkpoint and all rows before it lie in host memory that this session maps,
  // they come leased with the answer, at no further call. The caller drops them if it would rather
  // compute.
  bool lease_host = false;
};

struct MatchResult {
  uint32_t rows_blocks = 0;       // leading blocks whose rows are all present, in any tier
  uint32_t rows_host_blocks = 0;  // of these, leading ones in host memory
  // Checkpoints at or before rows_blocks, deepest first, at most 16. Empty: nothing to resume from.
  std::vector<CheckpointHit> checkpoints = {};
  // Another prompt went on behind the last of rows_blocks, otherwise than this one as far as its
  // whole blocks say: prompts part there.
  bool branches = false;
  // What Fetch of the first checkpoint's prefix would give; null: not asked for, not all in host
  // memory, not mapped, or too many leases are held already.
  std::shared_ptr<FetchedPrefix> leased = {};
};

// A verified-by-daemon, readable entry, valid while its FetchedPrefix lives. A lost lease means
// that another entry's bytes may lie there by now, so consumers verify what they read: by Parts, by
// Verify, or by CopyOut, which costs no second pass.
struct EntryView {
  EntryKey key;
  std::span<const uint8_t> payload;  // mapped or owned memory
  // Streamed entries: as the daemon sent them.
  std::vector<EntryPart> parts = {};
  // Mapped entries: the parts' sizes by the layout, their checksums in the arena behind the payload
  // (8 B each, unaligned), and the checksum that binds these to what the daemon answered.
  std::span<const uint32_t> part_bytes = {};
  const uint8_t* part_table = nullptr;
  uint64_t table_xxh3 = 0;
  // Where the same bytes lie in GPU memory, the part table behind them as in the arena; an address
  // of the GPU's in this process. Null: nowhere, or it is not mapped. The daemon had the GPU verify
  // them when they came there; as with mapped bytes, who reads them does so again.
  const uint8_t* gpu = nullptr;
  // The GPU can read payload and part table in the arena too (RemoteCacheOptions::pin).
  bool pinned = false;

  // The parts' sizes and checksums. DATA_LOSS: the table is not the one that was leased.
  absl::StatusOr<std::vector<EntryPart>> Parts() const;
  // Every part where it lies. DATA_LOSS names the first that differs.
  absl::Status Verify() const;
  // Copies the payload in the pass that verifies it; the checksums are of the bytes written, so
  // what is in `destination` after OK is what was put. INVALID_ARGUMENT: no room for it.
  absl::Status CopyOut(std::span<uint8_t> destination) const;
};

// How far a prefix has come that is fetched in groups (FetchRequest::groups).
struct Arrival {
  bool ended = true;  // it is there, or never will be: Await does not wait
  double share = 1;   // of its bytes that are there
  double seconds =
      0;  // that they took so far, from when the first was due; to the end, if it ended
};

class FetchedPrefix {
 public:
  virtual ~FetchedPrefix() = default;   // releases the lease; what still arrives is given up
  std::vector<EntryView> rows;          // blocks [0, rows.size()), at most what was asked
  std::optional<EntryView> checkpoint;  // at the asked block count; nullopt: gone meanwhile
  uint64_t host_bytes = 0;              // from which tier the bytes came
  uint64_t disk_bytes = 0;
  uint64_t copied_bytes = 0;  // copied on the way to `payload`; 0 for a mapped hit in host memory
  // Every part was checked as it arrived in memory of the client's own, which nobody else writes:
  // there is no need to do it again. False for mapped bytes, and when a part was not as it should
  // be.
  bool verified = false;

  // Of a fetch in groups, whose prefix may be handed out while it still arrives: returns when the
  // first `groups` of them are there and every part so far was found good. Before that nobody reads
  // them; afterwards they need no other check and are written by nobody. DATA_LOSS: a part was not
  // what it should be. Else what ended the transfer. At once where the fetch gave all of it. Any
  // thread.
  virtual absl::Status Await(size_t /*groups*/) const { return absl::OkStatus(); }
  virtual Arrival arrival() const { return {}; }

  uint64_t payload_bytes() const;
  // EntryView::CopyOut of all rows one after another, then of the checkpoint. By so many threads
  // (at least 1, this one among them), a run of whole entries each: one alone cannot use all of a
  // machine's memory bandwidth.
  absl::Status CopyOut(std::span<uint8_t> destination, int threads = 1) const;
};

// Where a group of a fetch's bytes ends: so many leading parts of each rows entry, and of the
// checkpoint, are in it or in one before.
struct PartGroup {
  uint32_t rows_parts = 0;
  uint32_t checkpoint_parts = 0;
  friend bool operator==(const PartGroup&, const PartGroup&) = default;
};

struct FetchRequest {
  std::span<const Digest>
      chain;               // digests of blocks [0, chain.size()): all their rows are asked for
  bool checkpoint = true;  // and the checkpoint at chain.size()
  absl::Duration deadline = absl::Seconds(30);
  // The lease's number: random and not in use, so that it can be released though its answer was
  // lost. 0: chosen for the caller. Ends with INVALID_ARGUMENT if it is in use.
  uint64_t lease = 0;
  // Bytes that have to travel may do so in these groups, and what was asked is handed out once all
  // of the first is there (FetchedPrefix::Await). None: it is handed out whole, as are mapped bytes
  // and those of a daemon that knows no groups. Ascending, at most kFetchGroupsMax, the last one of
  // all parts of the layout. The deadline is the last byte's.
  std::span<const PartGroup> groups = {};
};

struct ReserveItem {
  EntryKey key;
  Digest parent;       // the previous block's digest, or the root
  uint32_t index = 0;  // the block's index
};

enum class ReserveState : uint8_t {
  kExists = 1,  // stored already, nothing to do
  kGo = 2,      // the caller makes it; reservation id given
  kWait = 3,    // another session is making it
};

struct ReserveResult {
  ReserveState state = ReserveState::kWait;
  uint64_t reservation = 0;  // for kGo
};

// Memory that Commit takes entries from. On the same host it is shared with the daemon, so filling
// it is the engine's only write and commit the only copy. Whole kIoAlignment units.
class StagingBuffer {
 public:
  virtual ~StagingBuffer() = default;
  std::span<uint8_t> bytes;
};

struct CommitItem {
  uint64_t reservation = 0;
  const StagingBuffer* staging = nullptr;
  std::vector<EntryPart>
      parts;  // made by the engine; the daemon recomputes them over its copy and refuses a mismatch
};

struct NamedCount {
  std::string name;  // unit last: "host_used_bytes"
  uint64_t value = 0;
};

class CacheApi {
 public:
  virtual ~CacheApi() = default;

  virtual const Registration& registration() const = 0;

  // chain: digests of all whole blocks of the prompt, from block 0.
  virtual absl::StatusOr<MatchResult> Match(std::span<const Digest> chain,
                                            const MatchOptions& options) = 0;
  absl::StatusOr<MatchResult> Match(std::span<const Digest> chain) { return Match(chain, {}); }

  // Returns fewer rows than asked, or no checkpoint, when entries went meanwhile or failed their
  // checksum.
  virtual absl::StatusOr<std::unique_ptr<FetchedPrefix>> Fetch(const FetchRequest& request) = 0;

  // One result an item. If the first item is kWait and `wait` is positive, blocks until it is
  // committed (kExists), given up (kGo for the caller) or the time is over (kWait). Single-flight
  // across all sessions of the daemon.
  virtual absl::StatusOr<std::vector<ReserveResult>> Reserve(std::span<const ReserveItem> items,
                                                             absl::Duration wait) = 0;

  virtual absl::StatusOr<std::unique_ptr<StagingBuffer>> Stage(uint64_t bytes) = 0;

  // Each item whole or not at all; one status an item. durable: returns when it would survive power
  // loss.
  virtual absl::StatusOr<std::vector<absl::Status>> Commit(std::span<const CommitItem> items,
                                                           bool durable) = 0;

  virtual absl::Status Abort(std::span<const uint64_t> reservations) = 0;

  virtual absl::StatusOr<std::vector<NamedCount>> Stats() = 0;
};

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_CLIENT_CACHE_API_H_
