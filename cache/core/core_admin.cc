// What operators do: figures, lists, eviction, pins.
#include <algorithm>

#include "cache/core/core_impl.h"
#include "cache/core/selection.h"
#include "store/base/limits.h"

namespace cairn::cache {
namespace {

constexpr size_t kHost = static_cast<size_t>(Place::kHost);
constexpr size_t kDisk = static_cast<size_t>(Place::kDisk);
constexpr size_t kEraseBatch = 1024;
constexpr EntryKind kChildrenFirst[] = {EntryKind::kCheckpoint, EntryKind::kRows};

ListedPrefix Describe(const PrefixIndex& index, Block& block, int64_t wall_micros) {
  ListedPrefix listed;
  listed.digest = block.digest;
  listed.namespace_root = index.RootOf(block);
  listed.index = block.index;
  listed.rows_host = block.rows.in[kHost];
  listed.rows_disk = block.rows.in[kDisk];
  listed.checkpoint_host = block.checkpoint.in[kHost];
  listed.checkpoint_disk = block.checkpoint.in[kDisk];
  listed.pinned = block.rows.pinned;
  listed.leases = std::max(block.rows.leases, block.checkpoint.leases);
  listed.last_used_wall_micros = wall_micros - absl::ToInt64Microseconds(UnusedFor(index, block));
  for (const IndexEntry* entry : {&block.rows, &block.checkpoint}) {
    if (entry->present()) listed.bytes += entry->bytes;
  }
  return listed;
}

}  // namespace

std::vector<NamedCount> CoreImpl::Stats() {
  {
    MutexLock lock(&residency_.mutex);
    SweepLocked();  // what expired is no longer pinned
  }
  std::vector<NamedCount> counts;
  const store::HostTierStats host = residency_.host.stats();
  counts.insert(counts.end(), {{"host_capacity_bytes", host.capacity_bytes},
                               {"host_used_bytes", host.used_bytes},
                               {"host_pinned_bytes", host.pinned_bytes},
                               {"host_entries", host.entries},
                               {"host_touched_bytes", host.touched_bytes}});
  if (residency_.disk != nullptr) {
    const store::DiskTierStats disk = residency_.disk->stats();
    counts.insert(counts.end(), {{"disk_capacity_bytes", disk.capacity_bytes},
                                 {"disk_used_bytes", disk.used_bytes},
                                 {"disk_live_bytes", disk.live_bytes},
                                 {"disk_entries", disk.entries},
                                 {"disk_segments", disk.segments},
                                 {"disk_checksum_failures", disk.checksum_failures},
                                 {"disk_mended_entries", disk.mended_entries},
                                 {"disk_reclaimed_segments", disk.reclaimed_segments},
                                 {"disk_put_bytes", disk.put_bytes},
                                 {"disk_moved_bytes", disk.moved_bytes},
                                 {"disk_write_amplification_percent",
                                  static_cast<uint64_t>(disk.write_amplification() * 100)}});
  }
  {
    MutexLock lock(&residency_.mutex);
    counts.insert(counts.end(), {{"index_blocks", residency_.index.block_count()},
                                 {"index_memory_bytes", residency_.index.memory_bytes()},
                                 {"index_incomplete", residency_.incomplete() ? 1u : 0u},
                                 {"open_sessions", sessions_.size()},
                                 {"open_leases", leases_.size()},
                                 {"open_reservations", reservations_.size()},
                                 {"pinned_prefixes", pinned_tips_.size()},
                                 {"disk_queued_entries", writer_.queued_entries()}});
  }
  const std::vector<NamedCount> gpu = gpu_ != nullptr ? gpu_->Stats() : std::vector<NamedCount>();
  for (const std::vector<NamedCount>& more : {gpu, residency_.counters.List(), scrubber_.Stats()}) {
    counts.insert(counts.end(), more.begin(), more.end());
  }
  return counts;
}

std::vector<ListedPrefix> CoreImpl::List(const ListFilter& filter) {
  residency_.AwaitLoaded();
  MutexLock lock(&residency_.mutex);
  SweepLocked();
  std::vector<ListedPrefix> listed;
  const int64_t wall_micros = clock_.WallMicros();
  for (Block* block : Select(residency_.index, filter)) {
    if (listed.size() >= std::min(filter.limit, kListEntriesMax)) break;
    listed.push_back(Describe(residency_.index, *block, wall_micros));
    if (gpu_ == nullptr) continue;
    listed.back().rows_gpu = gpu_->Has({block, EntryKind::kRows});
    listed.back().checkpoint_gpu = gpu_->Has({block, EntryKind::kCheckpoint});
  }
  return listed;
}

absl::StatusOr<uint64_t> CoreImpl::Evict(const ListFilter& filter, uint64_t* kept) {
  residency_.AwaitLoaded();
  DiskLock disk_lock(residency_);
  PrefixIndex& index = residency_.index;
  uint64_t evicted = 0;
  *kept = 0;
  std::vector<EntryKey> on_disk;
  {
    MutexLock lock(&residency_.mutex);
    SweepLocked();
    std::vector<Block*> blocks = Select(residency_.index, filter);
    std::vector<Digest> emptied;
    for (auto block = blocks.rbegin(); block != blocks.rend(); ++block) {
      for (const EntryKind kind : kChildrenFirst) {
        const EntryRef ref{*block, kind};
        if (!ref->present()) continue;
        if (!index.Removable(ref)) {
          ++*kept;
          continue;
        }
        if (ref->in[kDisk]) on_disk.push_back(ref.key());
        residency_.DropHost(ref);
        residency_.DropDisk(ref);
        ++evicted;
        emptied.push_back((*block)->digest);
      }
    }
    for (const Digest& digest : emptied) {
      if (Block* block = index.Find(digest); block != nullptr) index.Prune(block);
    }
  }
  for (size_t i = 0; i < on_disk.size(); i += kEraseBatch) {
    CAIRN_RETURN_IF_ERROR(residency_.disk->Erase(
        std::span<const EntryKey>(on_disk).subspan(i, std::min(kEraseBatch, on_disk.size() - i))));
  }
  return evicted;
}

absl::Status CoreImpl::Pin(const Digest& digest, bool pin) {
  residency_.AwaitLoaded();
  MutexLock lock(&residency_.mutex);
  SweepLocked();
  PrefixIndex& index = residency_.index;
  Block* tip = index.Find(digest);
  // Of a prefix that damage left gaps in, or that is not indexed as a whole, the ancestors to pin
  // are not known; and what is unpinned later must be what was pinned.
  if (tip == nullptr || (pin && !index.Reachable(*tip))) {
    return absl::NotFoundError(absl::StrCat("no whole prefix ", digest.ToHex(), " is stored"));
  }
  if (pin) {
    ++pinned_tips_[digest];
  } else {
    const auto it = pinned_tips_.find(digest);
    if (it == pinned_tips_.end()) {
      return absl::FailedPreconditionError(
          absl::StrCat("the prefix ending at ", digest.ToHex(), " is not pinned"));
    }
    if (--it->second == 0) pinned_tips_.erase(it);
  }
  const int change = pin ? 1 : -1;
  index.AddPin({tip, EntryKind::kCheckpoint}, change);
  for (Block* block = tip; block != nullptr; block = index.ParentOf(*block)) {
    index.AddPin({block, EntryKind::kRows}, change);
  }
  index.Prune(tip);
  return absl::OkStatus();
}

absl::Status CoreImpl::Flush(absl::Duration deadline) {
  return writer_.Drain(
      clock_.NowNanos() + absl::ToInt64Nanoseconds(std::min(deadline, absl::Hours(24))), clock_);
}

}  // namespace cairn::cache
