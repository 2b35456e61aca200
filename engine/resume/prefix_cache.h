// prefix_cache.h: the engine's side of the cache: match, decide, fetch, verify, restore; and put
// what was computed.
//
// The engine never depends on it. Whatever the daemon does (absent, dead, hung, lying, of another
// version), Resume leaves the session either restored and verified or untouched, and says why once;
// from then on this object is detached and every call returns at once.
//
// Single-flight: Resume reserves the blocks that are missing. Where another engine is making them
// already it waits, at most Options::wait, and then uses what that one made.
//
// What a session is, and in whose memory it lies, is a CachedSession's affair: in host memory or on
// a GPU, all that is decided here is the same.
//
// Mapped rows are used where they lie until the first token is known, without a copy, by a session
// that can read them there. The daemon may take them back meanwhile (a lease over its deadline, an
// engine stopped so long that it was thought dead), so before anything computed from them leaves
// the engine, be it a token or a put, StillIntact checks them once more where they lie; Settle then
// copies and checks them for the tokens that follow. What fails either check is recomputed.
//
// Bytes of another host arrive while the first layers are computed from those that did: a session
// that takes a prefix so (CachedSession::takes_arriving) is restored once the first group of layers
// is there, and its first step waits for each further one. Every part is checked before the layer
// that it is of is computed. What did not arrive is as what was taken back: StillIntact is false.
//
// Threads:   Resume and Store from one thread; puts run on a thread of their queue.
// Ownership: restored sessions hold their lease through their row blocks.
#ifndef CAIRN_ENGINE_RESUME_PREFIX_CACHE_H_
#define CAIRN_ENGINE_RESUME_PREFIX_CACHE_H_

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "cache/client/cache_api.h"
#include "engine/resume/cost_model.h"
#include "engine/resume/put_queue.h"
#include "engine/resume/resume_point.h"
#include "engine/resume/shared_rows.h"
#include "engine/state/cached_session.h"
#include "store/base/clock.h"

namespace cairn::engine {

struct ResumeReport {
  int64_t prefix_tokens = 0;  // restored, or to be replayed from restored rows; 0 is a miss
  // Of a replay: the work left to the session's first steps, and what it is without the trapezoid
  // (state/replay_plan.h). 0: none.
  int64_t replay_token_layers = 0;
  int64_t replay_rectangle_token_layers = 0;
  uint64_t host_bytes = 0;  // fetched, by tier
  uint64_t disk_bytes = 0;
  uint64_t gpu_bytes = 0;     // of these, read in the daemon's pool in GPU memory
  uint64_t copied_bytes = 0;  // on the way into the engine; 0 for mapped entries that are read
                              // where they lie (the checkpoint's copy into the state aside)
  uint64_t checksum_failures = 0;
  bool arriving = false;  // when Resume returned, bytes were still on their way
  bool recompute_was_cheaper = false;
  bool fetch_was_late = false;  // given up at its deadline, and prefilled
  double wait_seconds = 0;      // for another engine's prefill
  double match_seconds = 0;
  double fetch_seconds = 0;    // of one that was arriving: until its first layers were there
  double restore_seconds = 0;  // verify and restore
};

class PrefixCache {
 public:
  struct Options {
    absl::Duration wait = absl::Seconds(30);
    // At most, and no longer than CostModel::FetchPatience.
    absl::Duration fetch_deadline = absl::Seconds(30);
    uint64_t put_queue_bytes = 512ull << 20;
    // Though computing would be faster, and with all of fetch_deadline: for proving what a hit
    // gives.
    bool always_load = false;
    // Computing begins while bytes still arrive, of prefixes of at least so many bytes.
    uint64_t overlap_bytes_min = 1 << 20;
    int64_t step_tokens = 256;  // that a step of one sequence has: what can hide loading
    // The queue of all that share a session with the cache, which it talks to as well: what they
    // put at about the same time goes in one call. Null: this one's own, of put_queue_bytes.
    std::shared_ptr<PutQueue> puts = nullptr;
    // What sessions of one process learn together; null: this one for itself.
    std::shared_ptr<CostModel> costs = nullptr;
    SharedRows* shared = nullptr;  // what Settle copies goes there, to be had by other sessions too
    // Told once why the cache is not used; may be empty.
    std::function<void(const std::string&)> say = {};
  };
  // `cache` null or failed: detached from the start (and said). What `model` refers to and `clock`
  // outlive this.
  PrefixCache(absl::StatusOr<std::unique_ptr<cache::CacheApi>> cache, const CachedModel& model,
              Clock& clock, Options options);
  ~PrefixCache();  // drops what its own queue has not put; call Flush to wait for it

  bool attached() const { return cache_ != nullptr && !puts_->detached(); }

  // `session` is fresh. Restores, whole or to be replayed, the prefix that gives the first token
  // soonest and leaves at least one token to compute.
  ResumeReport Resume(std::span<const int32_t> tokens, CachedSession& session);

  // Of a prefix that is arriving: returns when what it lacks arrives about as fast as the next of
  // `tokens_left` tokens are computed, so that a step keeps nobody waiting for long; or when it has
  // come, or failed. At once for any other.
  void AwaitStart(int64_t tokens_left) const;

  // True if the rows that Resume restored are still, to the byte, what was put. Trivially true
  // after a miss, a copying fetch, or into a session that copied them. Of a prefix that was
  // arriving: whether it did; waits for it.
  // Puts of what was computed from them wait for this.
  bool StillIntact();
  // Copies the restored rows, checks the copy and lets the lease go. False: they were taken back
  // meanwhile, and the session must be computed again. `in_shared`: the bytes of what the session
  // now holds in Options::shared.
  bool Settle(CachedSession& session, int64_t* in_shared = nullptr);

  // The next position at which a step should end so that a checkpoint can be taken: a block's end
  // that the policy wants, or `end`. `prompt_end` and `end` in tokens.
  int64_t NextStop(int64_t position, int64_t end, int64_t prompt_end) const;
  // Puts, in the background, all whole blocks of `session` not put yet, and the checkpoint at its
  // position if the policy wants one there. `tokens`: all tokens so far.
  void Store(CachedSession& session, std::span<const int32_t> tokens, int64_t prompt_end);
  // The sequence is over, or given up. Under the policy `ends` its last whole block gets a
  // checkpoint now; what was reserved for it and not made is given back, and so is the lease.
  void Finish();

  // Waits until everything in the queue is put, at most `deadline`. False: some was dropped.
  bool Flush(absl::Duration deadline);

  // `tokens` were computed, up to position `end`.
  void ObservePrefill(int64_t end, int64_t tokens, double seconds) {
    costs_->ObservePrefill(std::max<int64_t>(end - tokens, 0), tokens, seconds);
  }
  PutStats put_stats() const;  // of the queue

 private:
  absl::Status TryResume(std::span<const int32_t> tokens, CachedSession& session,
                         ResumeReport& report);
  absl::StatusOr<cache::MatchResult> MatchOrWait(std::span<const Digest> chain,
                                                 ResumeReport& report);
  absl::StatusOr<cache::MatchResult> Match(std::span<const Digest> chain);
  // What a prefill of the rest would put: rows of every block, and the checkpoints that the policy
  // wants.
  std::vector<cache::ReserveItem> Missing(const cache::MatchResult& match,
                                          std::span<const Digest> chain) const;
  // These are false, or null, when it went meanwhile, is damaged, or the daemon has no room for it.
  absl::StatusOr<bool> ResumeAt(const ResumePoint& point, cache::MatchResult& match,
                                std::span<const Digest> chain, CachedSession& session,
                                ResumeReport& report);
  // Whether bytes for it arrive while it computes.
  bool Overlaps(const CachedSession& session) const;
  // In which the point's bytes are to arrive; none: whole.
  std::vector<LayerGroup> GroupsOf(const ResumePoint& point, const CachedSession& session) const;
  // What the match leased if it is this prefix, else by a fetch.
  absl::StatusOr<std::shared_ptr<cache::FetchedPrefix>> TakeOrFetch(
      const ResumePoint& point, cache::MatchResult& match, std::span<const Digest> chain,
      std::span<const LayerGroup> groups, ResumeReport& report);
  absl::StatusOr<bool> Restore(const ResumePoint& point,
                               const std::shared_ptr<const cache::FetchedPrefix>& fetched,
                               std::span<const LayerGroup> groups, CachedSession& session,
                               ResumeReport& report) const;
  // Notes what became of a prefix that was arriving; waits for it.
  void NoteArrival();
  // Whether the policy wants a checkpoint there. `end`: the prompt's last whole block.
  bool Wants(int64_t blocks, int64_t end) const;
  void Put(PutItem item);
  PutItem MakeItem(int64_t block, EntryKind kind, std::shared_ptr<const uint8_t> bytes);
  absl::StatusOr<PutItem> MakeCheckpoint(CachedSession& session);
  absl::Status TryStore(CachedSession& session, int64_t prompt_end);
  void Taint();
  void AbandonReservations();
  void NoticeLoss();
  void Extend(std::span<const int32_t> tokens);
  void Detach(const std::string& why);

  const CachedModel model_;
  Clock& clock_;
  Options options_;
  std::shared_ptr<cache::CacheApi> cache_;
  const std::shared_ptr<CostModel> costs_;
  std::vector<uint32_t> rows_parts_;
  std::vector<uint32_t> checkpoint_parts_;
  std::vector<Digest> chain_;  // of the sequence being computed
  absl::flat_hash_map<EntryKey, uint64_t> reservations_;
  int64_t stored_blocks_ = 0;  // rows put or known to be there
  int64_t branch_blocks_ = 0;  // where this prompt parts from another; 0: nowhere known
  std::vector<cache::CheckpointHit> found_;  // checkpoints that need not be put
  std::shared_ptr<const cache::FetchedPrefix>
      mapped_;  // what the session's adopted rows lie in; null once settled
  std::shared_ptr<const cache::FetchedPrefix>
      arriving_;                  // what the session still awaits, or awaited in its last step
  size_t arriving_groups_ = 0;    // of it
  int64_t arriving_tokens_ = 0;   // of the prefix
  double arriving_before_ = 0;    // seconds of the fetch before its first byte
  std::vector<PutItem> pending_;  // computed from mapped rows that were not checked since
  uint64_t pending_bytes_ = 0;
  std::optional<PutItem>
      output_end_;        // the newest checkpoint past the prompt, in case it is the last
  bool tainted_ = false;  // a check failed: nothing of this sequence is put any more
  std::shared_ptr<PutQueue> puts_;
  bool said_ = false;
};

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_RESUME_PREFIX_CACHE_H_
