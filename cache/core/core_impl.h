// core_impl.h: the CacheCore that CacheCore::Create returns. Its methods are spread over
// core_session.cc (sessions, reserve), core_match.cc, core_fetch.cc, core_commit.cc and
// core_admin.cc.
//
// Threads: as cache_core.h. Methods whose name ends in Locked need residency_.mutex.
#ifndef CAIRN_CACHE_CORE_CORE_IMPL_H_
#define CAIRN_CACHE_CORE_CORE_IMPL_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "cache/core/cache_core.h"
#include "cache/core/disk_writer.h"
#include "cache/core/expiry.h"
#include "cache/core/gpu_copies.h"
#include "cache/core/lease_table.h"
#include "cache/core/reservation_table.h"
#include "cache/core/residency.h"
#include "cache/core/scrubber.h"
#include "cache/core/use_learner.h"
#include "cache/core/verifier.h"
#include "cache/core/waiter.h"

namespace cairn::cache {

class CoreImpl final : public CacheCore {
 public:
  CoreImpl(const Options& options, store::HostTier& host, store::DiskTier* disk, Clock& clock,
           Random& random);
  ~CoreImpl() override { residency_.StopLoading(); }  // which may tell what others look after
  void Start() {
    residency_.StartLoading(options_.background_load);
    scrubber_.Start();
  }

  absl::StatusOr<SessionId> OpenSession(const NamespaceSpec& spec,
                                        Registration* registration) override;
  void CloseSession(SessionId session) override;
  absl::StatusOr<MatchResult> Match(SessionId session, std::span<const Digest> chain) override;
  using CacheCore::MatchAndLease;
  absl::StatusOr<CoreMatch> MatchAndLease(SessionId session, std::span<const Digest> chain,
                                          LeaseId lease) override;
  absl::StatusOr<LeasedPrefix> Fetch(SessionId session, const FetchRequest& request) override;
  absl::Status Release(SessionId session, LeaseId lease) override;
  absl::StatusOr<std::vector<ReserveResult>> Reserve(SessionId session,
                                                     std::span<const ReserveItem> items,
                                                     absl::Duration wait) override;
  absl::StatusOr<std::vector<absl::Status>> Commit(SessionId session,
                                                   std::span<const CoreCommitItem> items,
                                                   bool durable) override;
  absl::Status Abort(SessionId session, std::span<const uint64_t> reservations) override;
  absl::StatusOr<store::GpuExport> AttachGpu(SessionId session) override;

  std::vector<NamedCount> Stats() override;
  std::vector<ListedPrefix> List(const ListFilter& filter) override;
  absl::StatusOr<uint64_t> Evict(const ListFilter& filter, uint64_t* kept) override;
  absl::Status Pin(const Digest& digest, bool pin) override;
  absl::StatusOr<VerifyReport> Verify(
      const VerifyOptions& options,
      const std::function<bool(const VerifyReport&)>& progress) override {
    return verifier_.Pass(options, progress);
  }
  absl::Status Flush(absl::Duration deadline) override;

  int arena_fd() const override { return residency_.host.arena_fd(); }
  uint64_t arena_bytes() const override { return residency_.host.arena_bytes(); }
  uint64_t gpu_bytes() const override;

 private:
  struct Session {
    Digest root;
    std::vector<uint32_t> rows_parts, checkpoint_parts;  // bytes each
    absl::flat_hash_set<LeaseId> leases;
    uint64_t leased_bytes = 0;  // an entry counts once a lease
    bool maps_gpu = false;

    const std::vector<uint32_t>& parts(EntryKind kind) const {
      return kind == EntryKind::kRows ? rows_parts : checkpoint_parts;
    }
  };
  struct FetchWant;
  struct FetchWork;
  struct CommitWork;

  uint64_t NewIdLocked();
  absl::StatusOr<Session*> FindSessionLocked(SessionId session);
  // Ends leases and reservations that are past their deadline. Every method that takes the lock
  // begins with it.
  void SweepLocked();
  void EndLeaseLocked(LeaseId id);

  // What the index does not know yet of a chain that is asked for.
  absl::Status BringIn(SessionId session, std::span<const Digest> chain);

  // match
  // Leading blocks of the chain that are this session's and whose rows are present.
  std::vector<Block*> WalkLocked(const Session& session, std::span<const Digest> chain) const;
  MatchResult MatchLocked(std::span<Block* const> blocks, size_t asked);
  std::optional<LeasedPrefix> LeaseHostLocked(SessionId id, Session& session,
                                              const MatchResult& match,
                                              std::span<const Digest> chain,
                                              std::span<Block* const> blocks, LeaseId lease);
  // Rows of the leading digests, then, if there is a pin more, the last one's checkpoint.
  // All payloads counted in host_bytes; adds what they take in the arena to `arena_bytes`.
  static LeasedPrefix HandOut(std::span<const Digest> digests, const store::HostPins& pins,
                              uint64_t* arena_bytes);
  // RESOURCE_EXHAUSTED: the session would hold too much of an arena that is nearly all held, so
  // that one that lets go of nothing cannot stop everybody's puts. Its first lease is any size.
  absl::Status CheckArenaShareLocked(const Session& session, uint64_t more_bytes) const;
  // INVALID_ARGUMENT: a lease has that number already.
  absl::Status CheckNewLeaseLocked(LeaseId lease) const;
  // `lease` 0: a number is chosen.
  LeaseId AddLeaseLocked(SessionId id, Session& session, LeaseId lease, uint64_t bytes,
                         std::vector<EntryRef> entries, store::HostPins pins, GpuLease gpu);
  // What of the prefix lies on the GPU too, for a session that can use it; says so in it.
  GpuLease LeaseGpuLocked(const Session& session, std::span<const Digest> blocks,
                          LeasedPrefix& prefix);

  // session, reserve
  absl::StatusOr<Digest> RootOf(const NamespaceSpec& spec) const;
  absl::Status CheckReserveItemLocked(const Session& session, const ReserveItem& item, size_t at);
  bool StoredLocked(const EntryKey& key) const;
  // A checkpoint past its time that somebody would put again is as good as new.
  void RenewLocked(const EntryKey& key);
  // The reservation handed over while waiting; 0 when the wait ended otherwise.
  absl::StatusOr<uint64_t> WaitForKeyLocked(SessionId session, const ReserveItem& item,
                                            absl::Duration wait);

  // fetch
  absl::Status PlanFetchLocked(const Session& session, const FetchRequest& request,
                               FetchWork& work);
  absl::Status GatherFetch(FetchWork& work);
  void CutFetchLocked(FetchWork& work, size_t rows);
  // Pins what is in host memory and lists what this call must read. Returns whether another call is
  // reading some of it.
  bool PinFetchLocked(FetchWork& work, std::vector<FetchWant*>& to_read);
  absl::Status ReadFetch(FetchWork& work, std::vector<FetchWant*>& to_read);
  void ReadChunk(const FetchWork& work, std::span<FetchWant* const> chunk);
  absl::Status CheckLoaded(const FetchWork& work, const FetchWant& want,
                           const store::DiskRead& read);
  void FinishReadLocked(FetchWant& want, store::DiskRead& read);
  void AbandonReadLocked(std::span<FetchWant* const> wants);

  // commit
  absl::Status StartCommitLocked(SessionId id, const Session& session, CommitWork& work);
  absl::Status CheckFoundationLocked(const CommitWork& work);
  absl::Status CommitOne(CommitWork& work, bool durable);
  absl::Status PublishCommitLocked(CommitWork& work, store::HostRoom room, bool durable);

  const Options options_;
  Clock& clock_;
  Random& random_;
  ClockWaiter clock_waiter_;
  Waiter& waiter_;
  Residency residency_;
  const std::unique_ptr<GpuCopies> gpu_;  // null: no GPU
  // All below are guarded by residency_.mutex.
  LeaseTable leases_;
  ReservationTable reservations_;
  absl::flat_hash_map<SessionId, Session> sessions_;
  absl::flat_hash_map<Digest, uint32_t> pinned_tips_;
  absl::flat_hash_set<EntryKey> loading_;  // being read from disk by some Fetch
  CondVar loaded_;
  Verifier verifier_;
  Expiry expiry_;
  DiskWriter writer_;  // these last: their threads use the rest
  UseLearner learner_;
  Scrubber scrubber_;
};

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_CORE_CORE_IMPL_H_
