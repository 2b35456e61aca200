// What operators do: figures, lists, eviction, pins, verification.
#include <algorithm>
#include <tuple>

#include "cache/core/core_impl.h"
#include "store/base/limits.h"
#include "store/device/file_system.h"

namespace cairn::cache {
namespace {

constexpr size_t kHost = static_cast<size_t>(Place::kHost);
constexpr size_t kDisk = static_cast<size_t>(Place::kDisk);
constexpr size_t kEraseBatch = 1024;
constexpr uint64_t kProgressEntries = 64;
constexpr EntryKind kChildrenFirst[] = {EntryKind::kCheckpoint, EntryKind::kRows};

// Since the later use of its entries.
absl::Duration UnusedFor(const PrefixIndex& index, Block& block) {
  absl::Duration unused = absl::InfiniteDuration();
  for (const EntryKind kind : kChildrenFirst) {
    if (block.entry(kind).present()) {
      unused = std::min(unused, index.UnusedFor({&block, kind}));
    }
  }
  return unused;
}

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
  const std::vector<NamedCount> counted = residency_.counters.List();
  counts.insert(counts.end(), counted.begin(), counted.end());
  return counts;
}

std::vector<Block*> CoreImpl::SelectLocked(const ListFilter& filter) {
  std::vector<Block*> selected;
  const auto consider = [&](Block* block) {
    if (!block->rows.present() && !block->checkpoint.present()) return;
    if (filter.namespace_root.has_value() &&
        residency_.index.RootOf(*block) != *filter.namespace_root)
      return;
    if (filter.leaves_only && block->has_children_present()) return;
    if (filter.unused_for.has_value() && UnusedFor(residency_.index, *block) < *filter.unused_for) {
      return;
    }
    selected.push_back(block);
  };
  if (!filter.prefix.has_value()) {
    residency_.index.VisitAll(consider);
  } else if (Block* top = residency_.index.Find(*filter.prefix); top != nullptr) {
    residency_.index.VisitSubtree(top, consider);
  }
  const PrefixIndex& index = residency_.index;
  std::sort(selected.begin(), selected.end(), [&index](const Block* a, const Block* b) {
    return std::tie(index.RootOf(*a), a->index, a->digest) <
           std::tie(index.RootOf(*b), b->index, b->digest);
  });
  return selected;
}

std::vector<ListedPrefix> CoreImpl::List(const ListFilter& filter) {
  residency_.AwaitLoaded();
  MutexLock lock(&residency_.mutex);
  SweepLocked();
  std::vector<ListedPrefix> listed;
  const int64_t wall_micros = clock_.WallMicros();
  for (Block* block : SelectLocked(filter)) {
    if (listed.size() >= std::min(filter.limit, kListEntriesMax)) break;
    listed.push_back(Describe(residency_.index, *block, wall_micros));
  }
  return listed;
}

absl::StatusOr<uint64_t> CoreImpl::Evict(const ListFilter& filter, uint64_t* kept) {
  residency_.AwaitLoaded();
  const DiskWriter::Pause pause(writer_);
  MutexLock disk_lock(&residency_.disk_mutex);
  PrefixIndex& index = residency_.index;
  uint64_t evicted = 0;
  *kept = 0;
  std::vector<EntryKey> on_disk;
  {
    MutexLock lock(&residency_.mutex);
    SweepLocked();
    std::vector<Block*> blocks = SelectLocked(filter);
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

void CoreImpl::VerifyOne(const EntryKey& key, store::IoBuffer& scratch, VerifyReport& report) {
  EntryRef ref;
  std::optional<store::HostPin> pin;
  bool on_disk = false;
  {
    MutexLock lock(&residency_.mutex);
    ref = {residency_.index.Find(key.digest), key.kind};
    if (ref.block == nullptr || !ref->present()) return;  // gone since it was listed
    residency_.index.AddHold(ref, 1);
    if (ref->in[kHost]) pin = residency_.PinHost(ref);
    on_disk = ref->in[kDisk];
  }
  ++report.entries;
  const bool host_damaged =
      pin.has_value() &&
      (!pin->TableIntact() || Residency::DamagedPart(pin->meta(), pin->payload()).has_value());
  if (pin.has_value()) report.bytes += pin->payload().size();
  store::DiskRead read;
  if (on_disk) {
    if (scratch.bytes().size() < RoundUpToIo(ref->bytes)) scratch = store::IoBuffer(ref->bytes);
    read.key = key;
    read.destination = scratch.bytes().first(RoundUpToIo(ref->bytes));
    residency_.disk->ReadBatch({&read, 1}, store::RecordCheck::kWhole);
    report.bytes += ref->bytes;
  }
  const bool disk_lost =
      on_disk && (absl::IsDataLoss(read.status) || absl::IsNotFound(read.status));

  MutexLock lock(&residency_.mutex);
  report.damaged += (host_damaged ? 1 : 0) + (disk_lost ? 1 : 0);
  residency_.counters.checksum_failures.Add((host_damaged ? 1 : 0) +
                                            (absl::IsDataLoss(read.status) ? 1 : 0));
  if (on_disk && absl::IsNotFound(read.status)) residency_.counters.lost_entries.Add();
  if (host_damaged) residency_.DropHost(ref);
  if (disk_lost) {
    residency_.DropDisk(ref);
    if (ref->in[kHost]) writer_.Enqueue(ref);  // the good copy replaces the bad one
  }
  residency_.index.AddHold(ref, -1);
  residency_.index.Prune(ref.block);
}

absl::StatusOr<VerifyReport> CoreImpl::Verify(
    const ListFilter& filter, const std::function<void(const VerifyReport&)>& progress) {
  residency_.AwaitLoaded();
  std::vector<EntryKey> keys;
  {
    MutexLock lock(&residency_.mutex);
    SweepLocked();
    for (Block* block : SelectLocked(filter)) {
      for (const EntryKind kind : kChildrenFirst) {
        if (block->entry(kind).present()) keys.push_back(block->key(kind));
      }
    }
  }
  VerifyReport report;
  store::IoBuffer scratch;
  for (size_t i = 0; i < keys.size(); ++i) {
    VerifyOne(keys[i], scratch, report);
    if (progress && (i + 1) % kProgressEntries == 0) progress(report);
  }
  if (progress) progress(report);
  return report;
}

absl::Status CoreImpl::Flush(absl::Duration deadline) {
  return writer_.Drain(
      clock_.NowNanos() + absl::ToInt64Nanoseconds(std::min(deadline, absl::Hours(24))), clock_);
}

}  // namespace cairn::cache
