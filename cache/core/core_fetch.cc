// Fetch: pin what is in host memory, bring the rest from disk into the arena, lease it all.
#include <algorithm>

#include "cache/core/core_impl.h"
#include "store/base/fault_point.h"
#include "store/base/limits.h"

namespace cairn::cache {
namespace {

constexpr size_t kHost = static_cast<size_t>(Place::kHost);
constexpr size_t kDisk = static_cast<size_t>(Place::kDisk);

// Between chunks the deadline is looked at and other fetches get what is there; within one, reads
// overlap.
constexpr uint64_t kReadChunkBytesMax = 64ull << 20;
constexpr size_t kReadChunkEntriesMax = 256;

}  // namespace

struct CoreImpl::FetchWant {
  EntryRef ref;  // leased in the index from the plan on
  store::HostPin pin;
  store::HostRoom room;
  bool from_disk = false;
  bool unreadable = false;  // this call does not try again
};

struct CoreImpl::FetchWork {
  const std::vector<uint32_t>* parts_of(EntryKind kind) const {
    return kind == EntryKind::kRows ? &rows_parts : &checkpoint_parts;
  }
  int64_t deadline_nanos = 0;
  Digest root;  // this and the next two of the session, which may end meanwhile
  std::vector<uint32_t> rows_parts, checkpoint_parts;
  std::vector<FetchWant> rows;
  std::optional<FetchWant> checkpoint;
};

absl::Status CoreImpl::PlanFetchLocked(const Session& session, const FetchRequest& request,
                                       FetchWork& work) {
  PrefixIndex& index = residency_.index;
  work.root = session.root;
  work.rows_parts = session.rows_parts;
  work.checkpoint_parts = session.checkpoint_parts;
  const std::vector<Block*> blocks = WalkLocked(session, request.chain);
  uint64_t bytes = 0;
  for (const Block* block : blocks) {
    bytes += store::HostRoomBytes(block->rows.bytes, work.rows_parts.size());
  }
  const bool whole = blocks.size() == request.chain.size() && !blocks.empty();
  const bool with_checkpoint = whole && request.checkpoint && blocks.back()->checkpoint.present() &&
                               !expiry_.Past(*blocks.back());
  if (with_checkpoint) {
    bytes += store::HostRoomBytes(blocks.back()->checkpoint.bytes, work.checkpoint_parts.size());
  }
  if (bytes > arena_bytes()) {
    return absl::ResourceExhaustedError(
        absl::StrCat("this prefix needs ", bytes, " bytes of host memory and the arena has ",
                     arena_bytes(), "; prefill it, or give the daemon a larger arena"));
  }
  CAIRN_RETURN_IF_ERROR(CheckArenaShareLocked(session, bytes));
  if (with_checkpoint) {
    const EntryRef ref{blocks.back(), EntryKind::kCheckpoint};
    index.AddLease(ref, 1);
    index.Touch(ref);
    work.checkpoint.emplace().ref = ref;
  }
  work.rows.resize(blocks.size());
  for (size_t i = blocks.size(); i-- > 0;) {
    const EntryRef ref{blocks[i], EntryKind::kRows};
    index.AddLease(ref, 1);
    index.Touch(ref);
    work.rows[i].ref = ref;
  }
  learner_.Noted();
  return absl::OkStatus();
}

void CoreImpl::CutFetchLocked(FetchWork& work, size_t rows) {
  const auto let_go = [this](FetchWant& want) {
    want.pin = store::HostPin();
    residency_.index.AddLease(want.ref, -1);
    residency_.index.Prune(want.ref.block);
  };
  // A checkpoint is of no use without all rows before it.
  if (work.checkpoint.has_value()) {
    let_go(*work.checkpoint);
    work.checkpoint.reset();
  }
  while (work.rows.size() > rows) {
    let_go(work.rows.back());
    work.rows.pop_back();
  }
}

bool CoreImpl::PinFetchLocked(FetchWork& work, std::vector<FetchWant*>& to_read) {
  bool others_read = false;
  const auto pin_or_list = [&](FetchWant& want) {
    if (want.pin) return true;
    if (want.ref->in[kHost]) {
      if (std::optional<store::HostPin> pin = residency_.PinHost(want.ref); pin.has_value()) {
        want.pin = std::move(*pin);
        return true;
      }
    }
    if (!want.ref->in[kDisk] || want.unreadable) return false;
    want.from_disk = true;
    if (loading_.contains(want.ref.key())) {
      others_read = true;
    } else {
      to_read.push_back(&want);
    }
    return true;
  };
  for (size_t i = 0; i < work.rows.size(); ++i) {
    if (pin_or_list(work.rows[i])) continue;
    CutFetchLocked(work, i);
    break;
  }
  if (work.checkpoint.has_value() && !pin_or_list(*work.checkpoint)) {
    CutFetchLocked(work, work.rows.size());
  }
  return others_read;
}

absl::Status CoreImpl::GatherFetch(FetchWork& work) {
  while (true) {
    std::vector<FetchWant*> to_read;
    {
      MutexLock lock(&residency_.mutex);
      const bool others_read = PinFetchLocked(work, to_read);
      if (to_read.empty() && !others_read) return absl::OkStatus();
      if (clock_.NowNanos() >= work.deadline_nanos) {
        return absl::DeadlineExceededError("the fetch's deadline passed while it read from disk");
      }
      if (to_read.empty()) {
        residency_.counters.joined_reads.Add();
        waiter_.Wait(residency_.mutex, loaded_, work.deadline_nanos);
        continue;
      }
      // All room before the first byte: a fetch that cannot be whole costs no reads.
      for (FetchWant* want : to_read) {
        absl::StatusOr<store::HostRoom> room =
            residency_.ReserveHost(want->ref->bytes, work.parts_of(want->ref.kind)->size());
        if (!room.ok()) {
          for (FetchWant* other : to_read) other->room = store::HostRoom();
          return room.status();
        }
        want->room = std::move(*room);
      }
      for (const FetchWant* want : to_read) loading_.insert(want->ref.key());
    }
    CAIRN_RETURN_IF_ERROR(ReadFetch(work, to_read));
  }
}

absl::Status CoreImpl::ReadFetch(FetchWork& work, std::vector<FetchWant*>& to_read) {
  const std::span<FetchWant* const> all(to_read);
  size_t begin = 0;
  while (begin < all.size()) {
    if (clock_.NowNanos() >= work.deadline_nanos) {
      MutexLock lock(&residency_.mutex);
      AbandonReadLocked(all.subspan(begin));
      return absl::DeadlineExceededError("the fetch's deadline passed while it read from disk");
    }
    size_t end = begin;
    for (uint64_t bytes = 0;
         end < all.size() && end - begin < kReadChunkEntriesMax && bytes < kReadChunkBytesMax;
         ++end) {
      bytes += all[end]->room.bytes().size();
    }
    ReadChunk(work, all.subspan(begin, end - begin));
    begin = end;
  }
  return absl::OkStatus();
}

void CoreImpl::ReadChunk(const FetchWork& work, std::span<FetchWant* const> chunk) {
  std::vector<store::DiskRead> reads(chunk.size());
  for (size_t i = 0; i < chunk.size(); ++i) {
    reads[i].key = chunk[i]->ref.key();
    reads[i].destination = chunk[i]->room.bytes();
  }
  residency_.disk->ReadBatch(reads);
  CAIRN_FAULT_POINT(kFetchRead);

  std::vector<EntryKey> gone;
  for (size_t i = 0; i < chunk.size(); ++i) {
    store::DiskRead& read = reads[i];
    if (absl::IsNotFound(read.status)) gone.push_back(read.key);
    if (!read.status.ok()) continue;
    read.status = CheckLoaded(work, *chunk[i], read);
    if (!read.status.ok()) residency_.EraseForeign(read.key, read.status);
  }
  if (!gone.empty()) residency_.ForgetIfGone(gone);
  MutexLock lock(&residency_.mutex);
  for (size_t i = 0; i < chunk.size(); ++i) FinishReadLocked(*chunk[i], reads[i]);
  loaded_.SignalAll();
}

// The tier has verified checksums; this asks whether it is the entry that the index and the layout
// speak of.
absl::Status CoreImpl::CheckLoaded(const FetchWork& work, const FetchWant& want,
                                   const store::DiskRead& read) {
  CAIRN_ASSIGN_OR_RETURN(const EntryAttributes attributes, DecodeAttributes(read.meta.attributes));
  const Block& block = *want.ref.block;  // leased: its identity does not change
  if (read.meta.key != read.key || attributes.root != work.root ||
      attributes.index != block.index) {
    return absl::DataLossError("the stored entry is another one than its key says");
  }
  const std::vector<uint32_t>& sizes = *work.parts_of(want.ref.kind);
  const bool same_shape =
      std::equal(sizes.begin(), sizes.end(), read.meta.parts.begin(), read.meta.parts.end(),
                 [](uint32_t bytes, const EntryPart& part) { return bytes == part.bytes; });
  if (!same_shape) return absl::DataLossError("the stored entry's parts are not the layout's");
  return absl::OkStatus();
}

void CoreImpl::FinishReadLocked(FetchWant& want, store::DiskRead& read) {
  Counters& counters = residency_.counters;
  loading_.erase(read.key);
  if (read.status.ok()) {
    const uint64_t bytes = read.meta.payload_bytes();
    read.status = residency_.PublishHost(want.ref, std::move(read.meta), std::move(want.room));
    if (read.status.ok()) {
      counters.promoted_entries.Add();
      counters.promoted_bytes.Add(bytes);
      CAIRN_FAULT_POINT(kFetchPromoted);
      return;
    }
  }
  want.room = store::HostRoom();
  // Of damage and losses index and counters know already. What lies there by now, if anything, is
  // for the next fetch.
  want.unreadable = true;
  if (!absl::IsDataLoss(read.status) && !absl::IsNotFound(read.status)) {
    counters.disk_read_failures.Add();
  }
}

void CoreImpl::AbandonReadLocked(std::span<FetchWant* const> wants) {
  for (FetchWant* want : wants) {
    loading_.erase(want->ref.key());
    want->room = store::HostRoom();
  }
  loaded_.SignalAll();
}

absl::StatusOr<LeasedPrefix> CoreImpl::Fetch(SessionId session, const FetchRequest& request) {
  if (request.chain.size() > kBlocksPerPrefixMax) {
    return absl::InvalidArgumentError(absl::StrCat(
        "chain: ", request.chain.size(), " blocks, at most ", kBlocksPerPrefixMax, " are allowed"));
  }
  if (residency_.incomplete()) CAIRN_RETURN_IF_ERROR(BringIn(session, request.chain));
  Counters& counters = residency_.counters;
  FetchWork work;
  work.deadline_nanos =
      clock_.NowNanos() + absl::ToInt64Nanoseconds(std::min(request.deadline, absl::Hours(1)));
  {
    MutexLock lock(&residency_.mutex);
    SweepLocked();
    counters.fetch_calls.Add();
    CAIRN_RETURN_IF_ERROR(CheckNewLeaseLocked(request.lease));
    CAIRN_ASSIGN_OR_RETURN(const Session* s, FindSessionLocked(session));
    if (s->leases.size() >= kLeasesPerSessionMax) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "leases: this session has ", kLeasesPerSessionMax, ", which is the most; release some"));
    }
    if (absl::Status status = PlanFetchLocked(*s, request, work); !status.ok()) {
      counters.fetch_refused_calls.Add();
      return status;
    }
  }
  const absl::Status gathered = GatherFetch(work);

  LeasedPrefix prefix;
  std::vector<EntryRef> entries;
  store::HostPins pins;
  uint64_t arena_bytes_held = 0;
  if (gathered.ok()) {
    uint64_t disk_bytes = 0;
    const auto take = [&](FetchWant& want) {
      if (want.from_disk) disk_bytes += want.pin.payload().size();
      entries.push_back(want.ref);
      pins.Add(std::move(want.pin));
    };
    for (FetchWant& want : work.rows) take(want);
    if (work.checkpoint.has_value()) take(*work.checkpoint);
    prefix = HandOut(request.chain.first(work.rows.size()), pins, &arena_bytes_held);
    prefix.disk_bytes = disk_bytes;
    prefix.host_bytes -= disk_bytes;
  }

  MutexLock lock(&residency_.mutex);
  const absl::StatusOr<Session*> s = FindSessionLocked(session);
  absl::Status status = gathered;
  status.Update(s.status());
  // Again: another of the session's fetches may have taken the number meanwhile.
  status.Update(CheckNewLeaseLocked(request.lease));
  if (!status.ok()) {
    if (!gathered.ok()) counters.fetch_refused_calls.Add();
    CutFetchLocked(work, 0);
    return status;
  }
  if (prefix.rows.size() < request.chain.size()) counters.fetch_shortened_calls.Add();
  counters.fetch_rows_entries.Add(prefix.rows.size());
  counters.fetch_checkpoint_entries.Add(prefix.checkpoint.has_value() ? 1 : 0);
  counters.fetch_host_bytes.Add(prefix.host_bytes);
  counters.fetch_disk_bytes.Add(prefix.disk_bytes);
  if (entries.empty()) return prefix;
  GpuLease gpu = LeaseGpuLocked(**s, request.chain.first(prefix.rows.size()), prefix);
  prefix.lease = AddLeaseLocked(session, **s, request.lease, arena_bytes_held, std::move(entries),
                                std::move(pins), std::move(gpu));
  return prefix;
}

}  // namespace cairn::cache
