// Commit: one copy into the arena, verified over the copy, published whole or not at all.
#include <algorithm>
#include <cstring>
#include <numeric>

#include "cache/core/core_impl.h"
#include "store/base/fault_point.h"
#include "store/base/limits.h"
#include "store/base/memory_copy.h"

namespace cairn::cache {
namespace {

// The source is a client's memory and may change while it is read: the checksums are of what was
// written. One pass.
absl::Status CopyVerified(const CoreCommitItem& item, std::span<uint8_t> room) {
  StreamingWriter writer(room.data());
  uint64_t offset = 0;
  for (size_t i = 0; i < item.parts.size(); ++i) {
    const EntryPart& part = item.parts[i];
    const uint64_t written = writer.Append(item.payload.subspan(offset, part.bytes));
    if (written != part.xxh3) {
      return absl::DataLossError(absl::StrCat("parts[", i, "]: XXH3 ", absl::Hex(part.xxh3),
                                              " was given, the bytes have ", absl::Hex(written)));
    }
    offset += part.bytes;
  }
  writer.Finish();
  // What lay here before was another entry.
  std::memset(room.data() + offset, 0, room.size() - offset);
  return absl::OkStatus();
}

absl::Status CheckShape(const CoreCommitItem& item, const std::vector<uint32_t>& sizes) {
  if (item.parts.size() != sizes.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("parts: ", item.parts.size(), " were given, the layout has ", sizes.size()));
  }
  uint64_t bytes = 0;
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (item.parts[i].bytes != sizes[i]) {
      return absl::InvalidArgumentError(absl::StrCat("parts[", i, "].bytes: ", item.parts[i].bytes,
                                                     ", the layout has ", sizes[i]));
    }
    bytes += sizes[i];
  }
  if (item.payload.size() < bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("payload: ", item.payload.size(), " bytes, the layout has ", bytes));
  }
  return absl::OkStatus();
}

}  // namespace

struct CoreImpl::CommitWork {
  const CoreCommitItem* item = nullptr;
  Digest root;
  ReserveItem reserved;
  bool started = false;  // the reservation is ours to end
  EntryRef ref;          // held, when durable and published
  absl::Status status;
};

absl::Status CoreImpl::StartCommitLocked(SessionId id, const Session& session, CommitWork& work) {
  Reservation* reservation = reservations_.Find(work.item->reservation);
  if (reservation == nullptr || reservation->session != id || reservation->committing) {
    return absl::AbortedError("reservation: it has ended, or is not this session's");
  }
  reservation->committing = true;
  work.started = true;
  CAIRN_FAULT_POINT(kCommitStarted);
  work.root = session.root;
  work.reserved = reservation->item;
  return CheckShape(*work.item, session.parts(reservation->item.key.kind));
}

absl::Status CoreImpl::CheckFoundationLocked(const CommitWork& work) {
  const ReserveItem& item = work.reserved;
  if (!residency_.index.Agrees(item.key.digest, {work.root, item.parent, item.index})) {
    return absl::InvalidArgumentError("key.digest: it belongs to another parent or index");
  }
  const bool is_rows = item.key.kind == EntryKind::kRows;
  if (is_rows && item.index == 0) return absl::OkStatus();
  if (StoredLocked({is_rows ? item.parent : item.key.digest, EntryKind::kRows})) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      is_rows ? "the parent's rows are not stored, so these could never be found; commit them first"
              : "this block's rows are not stored, so its checkpoint could never be found; commit "
                "them first");
}

absl::Status CoreImpl::PublishCommitLocked(CommitWork& work, store::HostRoom room, bool durable) {
  // Again: what it builds on may have been lost to damage while the bytes were copied.
  CAIRN_RETURN_IF_ERROR(CheckFoundationLocked(work));
  const ReserveItem& item = work.reserved;
  const EntryAttributes attributes{work.root, item.parent, item.index};
  const EntryRef ref{residency_.index.Add(item.key.digest, attributes), item.key.kind};
  const absl::Status published = residency_.PublishHost(
      ref, EntryMeta{item.key, work.item->parts, EncodeAttributes(attributes)}, std::move(room));
  if (!published.ok()) {
    residency_.index.Prune(ref.block);
    return published;
  }
  CAIRN_FAULT_POINT(kCommitPublished);
  residency_.index.Touch(ref);
  if (durable) {
    residency_.index.AddHold(ref, 1);
    work.ref = ref;
  }
  if (residency_.disk != nullptr) writer_.Enqueue(ref);
  CAIRN_FAULT_POINT(kCommitQueued);
  residency_.counters.commit_entries.Add();
  residency_.counters.commit_bytes.Add(ref->bytes);
  return absl::OkStatus();
}

absl::Status CoreImpl::CommitOne(CommitWork& work, bool durable) {
  store::HostRoom room;
  {
    MutexLock lock(&residency_.mutex);
    CAIRN_RETURN_IF_ERROR(CheckFoundationLocked(work));
    uint64_t bytes = 0;
    for (const EntryPart& part : work.item->parts) bytes += part.bytes;
    CAIRN_ASSIGN_OR_RETURN(room, residency_.ReserveHost(bytes, work.item->parts.size()));
  }
  CAIRN_FAULT_POINT(kCommitRoomTaken);
  if (absl::Status copied = CopyVerified(*work.item, room.bytes()); !copied.ok()) {
    residency_.counters.commit_mismatched_entries.Add();
    return copied;
  }
  CAIRN_FAULT_POINT(kCommitCopied);
  MutexLock lock(&residency_.mutex);
  return PublishCommitLocked(work, std::move(room), durable);
}

absl::StatusOr<std::vector<absl::Status>> CoreImpl::Commit(SessionId session,
                                                           std::span<const CoreCommitItem> items,
                                                           bool durable) {
  if (items.size() > kEntriesPerCommitMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("items: ", items.size(), ", at most ", kEntriesPerCommitMax, " are allowed"));
  }
  if (durable && residency_.disk == nullptr) {
    return absl::FailedPreconditionError(
        "durable: this daemon has no disk tier; commit without it, or give the daemon a directory");
  }
  std::vector<CommitWork> work(items.size());
  {
    MutexLock lock(&residency_.mutex);
    SweepLocked();
    CAIRN_ASSIGN_OR_RETURN(const Session* s, FindSessionLocked(session));
    for (size_t i = 0; i < items.size(); ++i) {
      work[i].item = &items[i];
      work[i].status = StartCommitLocked(session, *s, work[i]);
    }
  }
  // Parents before children, rows before their checkpoint, however the items came.
  std::vector<size_t> order(items.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&work](size_t a, size_t b) {
    const ReserveItem &x = work[a].reserved, &y = work[b].reserved;
    return std::pair(x.index, x.key.kind) < std::pair(y.index, y.key.kind);
  });
  for (const size_t i : order) {
    CommitWork& w = work[i];
    if (w.status.ok()) w.status = CommitOne(w, durable);
    if (!w.status.ok()) residency_.counters.commit_refused_entries.Add();
    if (!w.started) continue;
    MutexLock lock(&residency_.mutex);
    const ReservationEnd how =
        w.status.ok() ? ReservationEnd::kCommitted : ReservationEnd::kGivenUp;
    if (reservations_.End(w.item->reservation, how, clock_.NowNanos())) {
      residency_.counters.reservations_handed_over.Add();
    }
  }
  CAIRN_FAULT_POINT(kCommitEnded);
  std::vector<absl::Status> statuses;
  statuses.reserve(work.size());
  for (CommitWork& w : work) {
    if (w.ref.block != nullptr) {
      w.status = writer_.WaitSaved(w.ref);
      CAIRN_FAULT_POINT(kCommitSaved);
      MutexLock lock(&residency_.mutex);
      residency_.index.AddHold(w.ref, -1);
      residency_.index.Prune(w.ref.block);
    }
    statuses.push_back(std::move(w.status));
  }
  return statuses;
}

}  // namespace cairn::cache
