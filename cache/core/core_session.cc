// Creation, sessions, reserve: what is decided by the index alone.
#include <algorithm>

#include "absl/strings/str_join.h"
#include "cache/client/digest_chain.h"
#include "cache/core/core_impl.h"
#include "store/base/fault_point.h"
#include "store/base/limits.h"

namespace cairn::cache {
namespace {

std::span<const uint8_t> AsBytes(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

}  // namespace

CacheCore::~CacheCore() = default;

absl::StatusOr<std::unique_ptr<CacheCore>> CacheCore::Create(const Options& options,
                                                             store::HostTier& host,
                                                             store::DiskTier* disk, Clock& clock,
                                                             Random& random) {
  // Tenants are kept apart by their secrets alone.
  absl::flat_hash_map<std::string, std::string> owners = {
      {options.default_tenant_key, "the default tenant"}};
  for (const auto& [name, secret] : options.tenant_keys) {
    if (const auto [it, fresh] = owners.emplace(secret, absl::StrCat("tenant \"", name, "\""));
        !fresh) {
      return absl::InvalidArgumentError(absl::StrCat("tenant_keys: \"", name,
                                                     "\" has the same secret as ", it->second,
                                                     "; give every tenant a secret of its own"));
    }
  }
  const std::vector<std::string> known = PolicyNames();
  for (const std::string* eviction :
       {&options.eviction_host, &options.eviction_disk, &options.eviction_gpu}) {
    if (std::find(known.begin(), known.end(), *eviction) == known.end()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "eviction: \"", *eviction, "\" is not known; use ", absl::StrJoin(known, ", ")));
    }
  }
  auto core = std::make_unique<CoreImpl>(options, host, disk, clock, random);
  core->Start();
  return core;
}

namespace {

// Only roughly needed: it sizes what the policy remembers.
constexpr uint64_t kEntryBytesGuess = 256 << 10;

PrefixIndex::Options IndexOptions(const CacheCore::Options& options, const store::HostTier& host,
                                  const store::DiskTier* disk, Random& random) {
  PrefixIndex::Options index;
  index.policy[static_cast<size_t>(Place::kHost)] = options.eviction_host;
  index.policy[static_cast<size_t>(Place::kDisk)] = options.eviction_disk;
  index.entries_expected[static_cast<size_t>(Place::kHost)] =
      host.arena_bytes() / kEntryBytesGuess + 1;
  if (disk != nullptr) {
    index.entries_expected[static_cast<size_t>(Place::kDisk)] =
        disk->stats().capacity_bytes / kEntryBytesGuess + 1;
  }
  index.resumes_without_checkpoint = options.policy == CheckpointPolicy();  // `zero`
  index.random = &random;
  return index;
}

std::unique_ptr<GpuCopies> CopiesOn(const CacheCore::Options& options, Random& random,
                                    Residency& residency) {
  if (options.gpu_tier == nullptr) return nullptr;
  return std::make_unique<GpuCopies>(GpuCopies::Options{.policy = options.eviction_gpu,
                                                        .random = &random,
                                                        .background = options.background_writes},
                                     *options.gpu, *options.gpu_tier, residency);
}

}  // namespace

CoreImpl::CoreImpl(const Options& options, store::HostTier& host, store::DiskTier* disk,
                   Clock& clock, Random& random)
    : options_(options),
      clock_(clock),
      random_(random),
      clock_waiter_(clock),
      waiter_(options.waiter != nullptr ? *options.waiter : clock_waiter_),
      residency_(host, disk, clock, IndexOptions(options, host, disk, random)),
      gpu_(CopiesOn(options, random, residency_)),
      reservations_(
          residency_.index, [this] { return NewIdLocked(); },
          absl::ToInt64Nanoseconds(options.reservation_max)),
      verifier_(residency_, gpu_.get(), waiter_, clock),
      expiry_(residency_, options.policy),
      writer_(residency_, waiter_, expiry_, options.background_writes),
      learner_(residency_, options.background_writes),
      scrubber_(verifier_, clock,
                {.bytes_per_second = options.scrub_bytes_per_second,
                 .round_min = options.scrub_round_min}) {
  residency_.write_to_disk = [this](EntryRef ref) { writer_.Enqueue(ref); };
  if (gpu_ != nullptr) residency_.left_both = [this](EntryRef ref) { gpu_->Forget(ref); };
}

uint64_t CoreImpl::NewIdLocked() {
  uint64_t id = 0;
  while (id == 0) id = random_.Next();
  return id;
}

absl::StatusOr<CoreImpl::Session*> CoreImpl::FindSessionLocked(SessionId session) {
  const auto it = sessions_.find(session);
  if (it == sessions_.end()) return absl::AbortedError("the session has ended");
  return &it->second;
}

void CoreImpl::SweepLocked() {
  const int64_t now = clock_.NowNanos();
  while (const LeaseId id = leases_.Expired(now)) {
    residency_.counters.leases_expired.Add();
    EndLeaseLocked(id);
  }
  while (const uint64_t id = reservations_.Expired(now)) {
    residency_.counters.reservations_expired.Add();
    if (reservations_.End(id, ReservationEnd::kGivenUp, now)) {
      residency_.counters.reservations_handed_over.Add();
    }
  }
}

void CoreImpl::EndLeaseLocked(LeaseId id) {
  std::optional<Lease> lease = leases_.Take(id);
  if (!lease.has_value()) return;
  if (const auto it = sessions_.find(lease->session); it != sessions_.end()) {
    it->second.leases.erase(id);
    it->second.leased_bytes -= lease->bytes;
  }
  lease->pins = store::HostPins();
  if (gpu_ != nullptr) gpu_->Release(std::move(lease->gpu));
  for (const EntryRef ref : lease->entries) {
    residency_.index.AddLease(ref, -1);
    residency_.index.Prune(ref.block);
  }
}

absl::StatusOr<Digest> CoreImpl::RootOf(const NamespaceSpec& spec) const {
  if (spec.layout.version != kLayoutVersion) {
    return absl::FailedPreconditionError(
        absl::StrCat("layout version ", spec.layout.version, " is not this daemon's, which is ",
                     kLayoutVersion, "; upgrade the older of engine and daemon"));
  }
  CAIRN_RETURN_IF_ERROR(spec.layout.Validate());
  if (spec.tenant.size() > kTenantBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat(
        "tenant: ", spec.tenant.size(), " bytes, at most ", kTenantBytesMax, " are allowed"));
  }
  const std::string* secret = &options_.default_tenant_key;
  if (!spec.tenant.empty()) {
    const auto it = options_.tenant_keys.find(spec.tenant);
    if (it == options_.tenant_keys.end()) {
      return absl::PermissionDeniedError("tenant: not known to this daemon");
    }
    secret = &it->second;
  }
  return NamespaceRoot(AsBytes(*secret), spec.layout.Identity());
}

absl::StatusOr<SessionId> CoreImpl::OpenSession(const NamespaceSpec& spec,
                                                Registration* registration) {
  CAIRN_ASSIGN_OR_RETURN(const Digest root, RootOf(spec));
  MutexLock lock(&residency_.mutex);
  SweepLocked();
  if (sessions_.size() >= kSessionsMax) {
    return absl::ResourceExhaustedError(
        absl::StrCat("sessions: ", kSessionsMax, " are open already, which is the most"));
  }
  const SessionId id = NewIdLocked();
  Session& session = sessions_[id];
  session.root = root;
  session.rows_parts = spec.layout.part_bytes(LayoutScope::kPrefix);
  session.checkpoint_parts = spec.layout.part_bytes(LayoutScope::kTrailing);
  residency_.counters.sessions_opened.Add();
  registration->root = root;
  registration->policy = options_.policy.WithoutTtls();
  registration->mapped = false;  // the shell knows
  return id;
}

void CoreImpl::CloseSession(SessionId session) {
  MutexLock lock(&residency_.mutex);
  const auto it = sessions_.find(session);
  if (it == sessions_.end()) return;
  const std::vector<LeaseId> leases(it->second.leases.begin(), it->second.leases.end());
  sessions_.erase(it);
  for (const LeaseId id : leases) EndLeaseLocked(id);
  const auto [ended, handed_over] = reservations_.EndSession(session, clock_.NowNanos());
  residency_.counters.reservations_handed_over.Add(handed_over);
  if (!leases.empty() || ended != 0) residency_.counters.sessions_ended_holding.Add();
}

absl::StatusOr<store::GpuExport> CoreImpl::AttachGpu(SessionId session) {
  if (gpu_bytes() == 0) {
    return absl::FailedPreconditionError("this daemon has no pool in GPU memory");
  }
  CAIRN_ASSIGN_OR_RETURN(store::GpuExport exported, options_.gpu_tier->Export());
  MutexLock lock(&residency_.mutex);
  CAIRN_ASSIGN_OR_RETURN(Session* const s, FindSessionLocked(session));
  s->maps_gpu = true;
  return exported;
}

uint64_t CoreImpl::gpu_bytes() const {
  return gpu_ == nullptr || gpu_->given_up() ? 0 : options_.gpu_tier->pool_bytes();
}

absl::Status CoreImpl::BringIn(SessionId session, std::span<const Digest> chain) {
  Digest root;
  {
    MutexLock lock(&residency_.mutex);
    CAIRN_ASSIGN_OR_RETURN(const Session* s, FindSessionLocked(session));
    root = s->root;
  }
  residency_.BringIn(root, chain);
  return absl::OkStatus();
}

absl::Status CoreImpl::Release(SessionId session, LeaseId lease) {
  if (lease == 0) return absl::OkStatus();  // a fetch that held nothing
  MutexLock lock(&residency_.mutex);
  SweepLocked();
  CAIRN_RETURN_IF_ERROR(FindSessionLocked(session).status());
  const Lease* found = leases_.Find(lease);
  if (found == nullptr || found->session != session) {
    return absl::AbortedError("lease: it has ended, or is not this session's");
  }
  EndLeaseLocked(lease);
  return absl::OkStatus();
}

bool CoreImpl::StoredLocked(const EntryKey& key) const {
  Block* block = residency_.index.Find(key.digest);
  return block != nullptr && block->entry(key.kind).present();
}

void CoreImpl::RenewLocked(const EntryKey& key) {
  Block* const block = residency_.index.Find(key.digest);
  if (key.kind != EntryKind::kCheckpoint || !expiry_.Past(*block)) return;
  residency_.index.Touch({block, key.kind});
}

absl::Status CoreImpl::CheckReserveItemLocked(const Session& session, const ReserveItem& item,
                                              size_t at) {
  const auto bad = [at](const std::string& what) {
    return absl::InvalidArgumentError(absl::StrCat("items[", at, "].", what));
  };
  if (item.key.kind != EntryKind::kRows && item.key.kind != EntryKind::kCheckpoint) {
    return bad("key.kind: neither rows (1) nor checkpoint (2)");
  }
  if (item.key.kind == EntryKind::kCheckpoint && session.checkpoint_parts.empty()) {
    return bad("key.kind: this layout has no checkpoints");
  }
  if (item.index >= kBlocksPerPrefixMax) {
    return bad(absl::StrCat("index: ", item.index, ", at most ", kBlocksPerPrefixMax - 1));
  }
  const EntryAttributes attributes{session.root, item.parent, item.index};
  if (!Consistent(attributes)) {
    return bad("parent: the namespace root is the parent of index 0 and of no other");
  }
  if (item.key.digest == session.root || item.key.digest == item.parent ||
      !residency_.index.Agrees(item.key.digest, attributes)) {
    return bad("key.digest: it does not belong to this parent and index in this namespace");
  }
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> CoreImpl::WaitForKeyLocked(SessionId session, const ReserveItem& item,
                                                    absl::Duration wait) {
  const int64_t end = clock_.NowNanos() + absl::ToInt64Nanoseconds(wait);
  KeyWait waiting;
  waiting.session = session;
  waiting.item = item;
  bool started = false;
  while (waiting.granted == 0 && !waiting.session_ended) {
    const uint64_t maker = reservations_.MakerOf(item.key);
    const int64_t now = clock_.NowNanos();
    if (maker == 0 || now >= end) break;
    if (!started) {
      reservations_.StartWait(&waiting);
      residency_.counters.reserve_waited_calls.Add();
      started = true;
    }
    // A maker past its deadline is in the middle of a commit, which will wake us.
    const int64_t maker_end = reservations_.Find(maker)->deadline_nanos;
    waiter_.Wait(residency_.mutex, waiting.signal,
                 maker_end > now ? std::min(end, maker_end) : end);
    SweepLocked();
  }
  if (started) reservations_.StopWait(&waiting);
  if (waiting.session_ended) return absl::AbortedError("the session has ended");
  return waiting.granted;
}

absl::StatusOr<std::vector<ReserveResult>> CoreImpl::Reserve(SessionId session,
                                                             std::span<const ReserveItem> items,
                                                             absl::Duration wait) {
  if (items.size() > kReservationsPerSessionMax) {
    return absl::InvalidArgumentError(absl::StrCat("items: ", items.size(), ", at most ",
                                                   kReservationsPerSessionMax, " are allowed"));
  }
  if (wait > absl::Milliseconds(kReserveWaitMillisMax)) {
    return absl::InvalidArgumentError(
        absl::StrCat("wait: at most ", kReserveWaitMillisMax, " ms are allowed"));
  }
  MutexLock lock(&residency_.mutex);
  SweepLocked();
  CAIRN_ASSIGN_OR_RETURN(Session * s, FindSessionLocked(session));
  for (size_t i = 0; i < items.size(); ++i) {
    CAIRN_RETURN_IF_ERROR(CheckReserveItemLocked(*s, items[i], i));
  }
  uint64_t granted = 0;
  if (!items.empty() && wait > absl::ZeroDuration()) {
    CAIRN_ASSIGN_OR_RETURN(granted, WaitForKeyLocked(session, items[0], wait));
    CAIRN_RETURN_IF_ERROR(FindSessionLocked(session).status());
  }
  size_t wanted = 0;
  for (const ReserveItem& item : items) {
    if (!StoredLocked(item.key) && reservations_.MakerOf(item.key) == 0) ++wanted;
  }
  if (reservations_.CountOf(session) + wanted > kReservationsPerSessionMax) {
    if (granted != 0) {
      reservations_.End(granted, ReservationEnd::kGivenUp, clock_.NowNanos());
    }
    return absl::ResourceExhaustedError(absl::StrCat("items: this session would have over ",
                                                     kReservationsPerSessionMax,
                                                     " reservations; commit or abort some first"));
  }
  std::vector<ReserveResult> results(items.size());
  for (size_t i = 0; i < items.size(); ++i) {
    if (i == 0 && granted != 0) {
      results[i] = {ReserveState::kGo, granted};
      residency_.counters.reserve_go_entries.Add();
    } else if (StoredLocked(items[i].key)) {
      RenewLocked(items[i].key);
      results[i] = {ReserveState::kExists, 0};
      residency_.counters.reserve_exists_entries.Add();
    } else if (reservations_.MakerOf(items[i].key) != 0) {
      results[i] = {ReserveState::kWait, 0};
      residency_.counters.reserve_wait_entries.Add();
    } else {
      results[i] = {ReserveState::kGo, reservations_.Make(session, items[i], clock_.NowNanos())};
      CAIRN_FAULT_POINT(kReserveMade);
      residency_.counters.reserve_go_entries.Add();
    }
  }
  return results;
}

absl::Status CoreImpl::Abort(SessionId session, std::span<const uint64_t> reservations) {
  if (reservations.size() > kReservationsPerSessionMax) {
    return absl::InvalidArgumentError(absl::StrCat("reservations: ", reservations.size(),
                                                   ", at most ", kReservationsPerSessionMax,
                                                   " are allowed"));
  }
  MutexLock lock(&residency_.mutex);
  SweepLocked();
  CAIRN_RETURN_IF_ERROR(FindSessionLocked(session).status());
  for (const uint64_t id : reservations) {
    const Reservation* found = reservations_.Find(id);
    // Ended already, or about to be by a commit: there is nothing to give up.
    if (found == nullptr || found->session != session || found->committing) continue;
    residency_.counters.reservations_aborted.Add();
    if (reservations_.End(id, ReservationEnd::kGivenUp, clock_.NowNanos())) {
      residency_.counters.reservations_handed_over.Add();
    }
  }
  return absl::OkStatus();
}

}  // namespace cairn::cache
