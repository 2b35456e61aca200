#include "cache/core/residency.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "store/base/checksum.h"
#include "store/base/come_again.h"
#include "store/base/fault_point.h"
#include "store/base/limits.h"

namespace cairn::cache {
namespace {

// Upper bound of a record's bytes on disk: header with the part table, then the payload, both in
// whole I/O units.
uint64_t RecordBytes(const EntryMeta& meta) {
  return RoundUpToIo(meta.payload_bytes()) +
         RoundUpToIo(1024 + meta.attributes.size() + meta.parts.size() * 16);
}

// Why no room could be made. DATA_LOSS here is the catalog's, not that of what is put, which its
// callers would throw away.
absl::Status NoRoom(const absl::Status& why) {
  if (!absl::IsDataLoss(why)) return why;
  return absl::ResourceExhaustedError(
      absl::StrCat("no room on disk, and none can be made: ", std::string(why.message())));
}

}  // namespace

// As much of the digest as `cairnctl ls` shows.
void Residency::SayWithdrawn(const EntryKey& key, const char* where, const absl::Status& why) {
  spdlog::error("{} {} {}: {}; withdrawn",
                key.kind == EntryKind::kRows ? "rows of block" : "checkpoint of block",
                key.digest.ToHex().substr(0, 16), where, std::string(why.message()));
}

absl::StatusOr<store::HostRoom> Residency::ReserveHost(uint64_t bytes, size_t parts) {
  if (store::HostRoomBytes(bytes, parts) > host.arena_bytes()) {
    return absl::ResourceExhaustedError(absl::StrCat("an entry of ", bytes,
                                                     " bytes does not fit into an arena of ",
                                                     host.arena_bytes(), " bytes"));
  }
  while (true) {
    absl::StatusOr<store::HostRoom> room = host.Reserve(bytes, parts);
    if (!absl::IsResourceExhausted(room.status())) return room;
    const std::optional<EntryRef> victim = index.Victim(Place::kHost);
    if (!victim.has_value()) {
      return ComeAgainIn(
          kLeaseComeAgain,
          absl::StrCat("no room for ", bytes, " bytes in an arena of ", host.arena_bytes(),
                       " bytes, all entries left are leased, pinned or being written"));
    }
    const EntryRef ref = *victim;
    counters.evicted_host_entries.Add();
    counters.evicted_host_bytes.Add(ref->bytes);
    if (!ref->in[static_cast<size_t>(Place::kDisk)] && disk != nullptr) {
      counters.evicted_host_unsaved_entries.Add();
    }
    CAIRN_FAULT_POINT(kHostEvict);
    DropHost(ref, /*evicted=*/true);
    index.Prune(ref.block);
  }
}

absl::Status Residency::PublishHost(EntryRef ref, EntryMeta meta, store::HostRoom room) {
  const uint64_t bytes = meta.payload_bytes();
  absl::Status status = host.Publish(std::move(meta), std::move(room));
  if (!status.ok() && !absl::IsAlreadyExists(status)) return status;
  ref->bytes = static_cast<uint32_t>(bytes);  // at most kEntryBytesMax
  index.SetPresent(ref, Place::kHost, true);
  return absl::OkStatus();
}

std::optional<store::HostPin> Residency::PinHost(EntryRef ref) {
  std::optional<store::HostPin> pin = host.Find(ref.key());
  if (!pin.has_value()) {
    counters.lost_entries.Add();
    DropHost(ref);
  }
  return pin;
}

void Residency::DropHost(EntryRef ref, bool evicted) {
  host.Erase(ref.key());
  index.SetQueued(ref, false);  // nothing is left to write
  ref->heals = false;
  index.SetPresent(ref, Place::kHost, false, evicted);
  TellIfGone(ref);
}

void Residency::DropDisk(EntryRef ref, bool evicted) {
  if (incomplete()) gone_.insert(ref.key());
  index.SetPresent(ref, Place::kDisk, false, evicted);
  TellIfGone(ref);
}

bool Residency::DropDamagedHost(EntryRef ref, const store::HostPin& pin, const absl::Status& why) {
  if (!host.Erase(pin)) return false;
  DropHost(ref);
  (ref.kind == EntryKind::kRows ? counters.damaged_host_rows : counters.damaged_host_checkpoints)
      .Add();
  SayWithdrawn(ref.key(), "in host memory", why);
  return true;
}

void Residency::Withdrawn(const EntryKey& key, const absl::Status& why) {
  const bool indexed = ForgetOnDisk(key);
  if (absl::IsNotFound(why)) {
    if (!indexed) return;
    counters.lost_entries.Add();
  } else {
    (key.kind == EntryKind::kRows ? counters.damaged_disk_rows : counters.damaged_disk_checkpoints)
        .Add();
  }
  SayWithdrawn(key, "on disk", why);
}

bool Residency::ForgetOnDisk(const EntryKey& key) {
  MutexLock lock(&mutex);
  if (incomplete()) gone_.insert(key);
  const EntryRef ref{index.Find(key.digest), key.kind};
  if (ref.block == nullptr || !ref->in[static_cast<size_t>(Place::kDisk)]) return false;
  DropDisk(ref);
  if (ref->in[static_cast<size_t>(Place::kHost)]) {
    ref->heals = true;
    write_to_disk(ref);
  }
  index.Prune(ref.block);
  return true;
}

void Residency::EraseForeign(const EntryKey& key, const absl::Status& why) {
  DiskLock disk_lock(*this);             // so that no newer put of the key can be hit
  disk->Erase({&key, 1}).IgnoreError();  // the index forgets it in any case
  Withdrawn(key, why);
}

void Residency::ForgetIfGone(std::span<const EntryKey> keys) {
  DiskLock disk_lock(*this);  // nobody puts or erases meanwhile
  for (const EntryKey& key : keys) {
    const auto there = disk->Find(key);
    if (there.ok() && !there->has_value()) {
      Withdrawn(key, absl::NotFoundError("it is not there any more"));
    }
  }
}

EntryKey Residency::EvictOne(EntryRef ref) {
  CAIRN_FAULT_POINT(kEvictChosen);
  counters.evicted_disk_entries.Add();
  counters.evicted_disk_bytes.Add(ref->bytes);
  DropDisk(ref, /*evicted=*/true);
  return ref.key();
}

absl::StatusOr<uint64_t> Residency::EvictFromDisk(uint64_t bytes) {
  AwaitLoaded();
  uint64_t evicted = 0;
  std::vector<EntryKey> keys;
  {
    MutexLock lock(&mutex);
    while (evicted < bytes) {
      const std::optional<EntryRef> victim = index.Victim(Place::kDisk);
      if (!victim.has_value()) break;
      evicted += (*victim)->bytes;
      keys.push_back(EvictOne(*victim));
      index.Prune(victim->block);
    }
  }
  CAIRN_RETURN_IF_ERROR(EraseEvicted(keys));
  return evicted;
}

absl::Status Residency::EraseEvicted(std::span<const EntryKey> keys) {
  if (keys.empty()) return absl::OkStatus();
  CAIRN_FAULT_POINT(kEvictBeforeErase);
  CAIRN_RETURN_IF_ERROR(disk->Erase(keys));
  CAIRN_FAULT_POINT(kEvictErased);
  return absl::OkStatus();
}

absl::Status Residency::PutOnDisk(std::span<const store::DiskPut> puts) {
  uint64_t needed = 0;
  for (const store::DiskPut& put : puts) needed += RecordBytes(*put.meta);
  absl::Status status = disk->Put(puts);
  while (absl::IsResourceExhausted(status)) {
    if (const absl::Status room = disk->Reclaim(needed); room.ok()) {
      // Room by the tier's own limit: if the put still fails, the file system under it is full.
      return disk->Put(puts);
    } else if (!absl::IsResourceExhausted(room)) {
      return NoRoom(room);
    }
    if (weighs_) {
      const absl::StatusOr<bool> freed = ReclaimWorstSegment();
      if (!freed.ok()) return NoRoom(freed.status());
      if (*freed) continue;
    }
    // Ahead of need, so that a full disk does not evict entry by entry.
    const uint64_t goal = std::max(needed, disk->stats().capacity_bytes / 64);
    const absl::StatusOr<uint64_t> evicted = EvictFromDisk(goal);
    if (!evicted.ok()) return NoRoom(evicted.status());
    if (*evicted == 0) return status;
  }
  return status;
}

std::optional<size_t> Residency::DamagedPart(const EntryMeta& meta,
                                             std::span<const uint8_t> payload) {
  uint64_t offset = 0;
  for (size_t i = 0; i < meta.parts.size(); ++i) {
    const EntryPart& part = meta.parts[i];
    if (offset + part.bytes > payload.size()) return i;
    if (Checksum(payload.subspan(offset, part.bytes)) != part.xxh3) return i;
    offset += part.bytes;
  }
  return std::nullopt;
}

}  // namespace cairn::cache
