// Match: how much of a prompt is here, and where. Decided by the index alone; what it leases lies
// in host memory already.
#include <algorithm>

#include "cache/core/core_impl.h"
#include "store/base/come_again.h"
#include "store/base/limits.h"

namespace cairn::cache {
namespace {

constexpr size_t kMatchCheckpointsMax = 16;
constexpr size_t kHost = static_cast<size_t>(Place::kHost);

absl::Status CheckChain(std::span<const Digest> chain) {
  if (chain.size() <= kBlocksPerPrefixMax) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("chain: ", chain.size(), " blocks, at most ",
                                                 kBlocksPerPrefixMax, " are allowed"));
}

}  // namespace

std::vector<Block*> CoreImpl::WalkLocked(const Session& session,
                                         std::span<const Digest> chain) const {
  // Far enough for the table's lines to come while others are looked at.
  constexpr size_t kAhead = 8;
  const PrefixIndex& index = residency_.index;
  std::vector<Block*> blocks;
  blocks.reserve(chain.size());
  for (size_t i = 0; i < chain.size(); ++i) {
    if (i + kAhead < chain.size()) index.Prefetch(chain[i + kAhead]);
    Block* block = index.Find(chain[i]);
    if (block == nullptr || index.RootOf(*block) != session.root || block->index != i ||
        !block->rows.present()) {
      break;
    }
    index.PrefetchBehind(*block);
    blocks.push_back(block);
  }
  return blocks;
}

MatchResult CoreImpl::MatchLocked(std::span<Block* const> blocks, size_t asked) {
  const int64_t now = clock_.NowNanos();
  MatchResult result;
  result.rows_blocks = static_cast<uint32_t>(blocks.size());
  const auto on_disk_only = [](const Block* block) { return !block->rows.in[kHost]; };
  result.rows_host_blocks = static_cast<uint32_t>(
      std::find_if(blocks.begin(), blocks.end(), on_disk_only) - blocks.begin());
  for (size_t i = blocks.size(); i-- > 0;) {
    Block* const block = blocks[i];
    if (block->checkpoint.present() && result.checkpoints.size() < kMatchCheckpointsMax &&
        !expiry_.Past(*block)) {
      // Only the deepest is of use now; older ones age.
      if (result.checkpoints.empty()) {
        residency_.index.Touch({block, EntryKind::kCheckpoint}, now);
      }
      result.checkpoints.push_back(
          {block->index + 1, block->checkpoint.in[kHost] ? Tier::kHost : Tier::kDisk});
    }
    residency_.index.Touch({block, EntryKind::kRows}, now);
  }
  result.branches = !blocks.empty() && blocks.back()->has_children_present();
  learner_.Noted();
  residency_.counters.match_calls.Add();
  residency_.counters.match_asked_blocks.Add(asked);
  residency_.counters.match_found_blocks.Add(blocks.size());
  return result;
}

absl::StatusOr<MatchResult> CoreImpl::Match(SessionId session, std::span<const Digest> chain) {
  CAIRN_RETURN_IF_ERROR(CheckChain(chain));
  if (residency_.incomplete()) CAIRN_RETURN_IF_ERROR(BringIn(session, chain));
  MutexLock lock(&residency_.mutex);
  SweepLocked();
  CAIRN_ASSIGN_OR_RETURN(const Session* s, FindSessionLocked(session));
  return MatchLocked(WalkLocked(*s, chain), chain.size());
}

absl::StatusOr<CoreMatch> CoreImpl::MatchAndLease(SessionId session, std::span<const Digest> chain,
                                                  LeaseId lease) {
  CAIRN_RETURN_IF_ERROR(CheckChain(chain));
  if (residency_.incomplete()) CAIRN_RETURN_IF_ERROR(BringIn(session, chain));
  MutexLock lock(&residency_.mutex);
  SweepLocked();
  CAIRN_RETURN_IF_ERROR(CheckNewLeaseLocked(lease));
  CAIRN_ASSIGN_OR_RETURN(Session* const s, FindSessionLocked(session));
  const std::vector<Block*> blocks = WalkLocked(*s, chain);
  CoreMatch match;
  match.found = MatchLocked(blocks, chain.size());
  match.leased = LeaseHostLocked(session, *s, match.found, chain, blocks, lease);
  return match;
}

std::optional<LeasedPrefix> CoreImpl::LeaseHostLocked(SessionId id, Session& session,
                                                      const MatchResult& match,
                                                      std::span<const Digest> chain,
                                                      std::span<Block* const> blocks,
                                                      LeaseId lease) {
  if (match.checkpoints.empty() || session.leases.size() >= kLeasesPerSessionMax) {
    return std::nullopt;
  }
  const CheckpointHit& deepest = match.checkpoints.front();
  if (deepest.tier != Tier::kHost || deepest.blocks > match.rows_host_blocks) return std::nullopt;
  const std::span<const Digest> digests = chain.first(deepest.blocks);
  const EntryRef tip{blocks[deepest.blocks - 1], EntryKind::kRows};
  const EntryRef checkpoint{tip.block, EntryKind::kCheckpoint};
  store::HostPins pins = residency_.host.FindAll(digests, EntryKind::kRows);
  std::optional<store::HostPin> pin = residency_.host.Find(checkpoint.key());
  // The tier lost what the index says is there: Fetch counts and mends that.
  if (pins.size() < digests.size() || !pin.has_value()) return std::nullopt;
  pins.Add(std::move(*pin));
  uint64_t arena_bytes_held = 0;
  LeasedPrefix prefix = HandOut(digests, pins, &arena_bytes_held);
  if (!CheckArenaShareLocked(session, arena_bytes_held).ok()) return std::nullopt;
  // The bytes are held by their pins. In the index the tip is enough: rows do not go from a tier
  // before their children's.
  residency_.index.AddLease(tip, 1);
  residency_.index.AddLease(checkpoint, 1);
  prefix.lease = AddLeaseLocked(id, session, lease, arena_bytes_held, {tip, checkpoint},
                                std::move(pins), LeaseGpuLocked(session, digests, prefix));
  Counters& counters = residency_.counters;
  counters.match_leased_calls.Add();
  counters.fetch_rows_entries.Add(prefix.rows.size());
  counters.fetch_checkpoint_entries.Add();
  counters.fetch_host_bytes.Add(prefix.host_bytes);
  return prefix;
}

LeasedPrefix CoreImpl::HandOut(std::span<const Digest> digests, const store::HostPins& pins,
                               uint64_t* arena_bytes) {
  LeasedPrefix prefix;
  const auto entry = [&](size_t pin, size_t block, EntryKind kind) {
    const store::HostExtent extent = pins[pin];
    prefix.host_bytes += extent.payload.size();
    *arena_bytes += store::HostRoomBytes(extent.payload.size(), extent.part_xxh3.size());
    return LeasedEntry{
        {digests[block], kind}, extent.offset, extent.payload, extent.part_xxh3, extent.table_xxh3};
  };
  const size_t rows = std::min(digests.size(), pins.size());
  prefix.rows.reserve(rows);
  for (size_t i = 0; i < rows; ++i) prefix.rows.push_back(entry(i, i, EntryKind::kRows));
  if (pins.size() > rows) prefix.checkpoint = entry(rows, rows - 1, EntryKind::kCheckpoint);
  return prefix;
}

absl::Status CoreImpl::CheckNewLeaseLocked(LeaseId lease) const {
  if (lease == 0 || leases_.Find(lease) == nullptr) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("lease: ", lease, " is in use; take a random number, or 0"));
}

absl::Status CoreImpl::CheckArenaShareLocked(const Session& session, uint64_t more_bytes) const {
  const uint64_t held = session.leased_bytes + more_bytes;
  if (session.leases.empty() || held <= LeasedBytesPerSessionMax(arena_bytes())) {
    return absl::OkStatus();
  }
  if (residency_.host.stats().pinned_bytes + more_bytes <= LeasedBytesEasy(arena_bytes())) {
    return absl::OkStatus();
  }
  return ComeAgainIn(
      kLeaseComeAgain,
      absl::StrCat("leases: this session's would hold ", held, " of the arena's ", arena_bytes(),
                   " bytes and most of these are held, release some"));
}

LeaseId CoreImpl::AddLeaseLocked(SessionId id, Session& session, LeaseId lease, uint64_t bytes,
                                 std::vector<EntryRef> entries, store::HostPins pins,
                                 GpuLease gpu) {
  if (lease == 0) lease = NewIdLocked();
  session.leases.insert(lease);
  session.leased_bytes += bytes;
  leases_.Add(lease,
              {.session = id,
               .deadline_nanos = clock_.NowNanos() + absl::ToInt64Nanoseconds(options_.lease_max),
               .bytes = bytes,
               .entries = std::move(entries),
               .pins = std::move(pins),
               .gpu = std::move(gpu)});
  return lease;
}

GpuLease CoreImpl::LeaseGpuLocked(const Session& session, std::span<const Digest> blocks,
                                  LeasedPrefix& prefix) {
  if (!session.maps_gpu) return {};
  GpuLease lease = gpu_->Lease(blocks, prefix.checkpoint.has_value());
  prefix.gpu_offsets.reserve(lease.pins.size());
  for (size_t i = 0; i < lease.pins.size(); ++i) {
    prefix.gpu_offsets.push_back(lease.pins[i].offset);
  }
  return lease;
}

}  // namespace cairn::cache
