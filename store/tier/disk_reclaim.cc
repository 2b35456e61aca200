// Reclaim: room comes back by whole segments.

#include <algorithm>
#include <optional>
#include <vector>

#include "store/base/fault_point.h"
#include "store/tier/disk_tier_impl.h"

namespace cairn::store {
namespace {

// Payload bytes in memory at once while Reclaim moves a segment.
constexpr uint64_t kMoveBytesMax = 64ull << 20;

}  // namespace

absl::Status DiskTier::Reclaim(uint64_t bytes) {
  CAIRN_RETURN_IF_ERROR(impl_->EnsureSurveyed());
  const std::lock_guard<std::mutex> one(impl_->reclaim_mutex);
  CAIRN_FAULT_POINT(kReclaimBegun);
  impl_->reclaimed_segments += impl_->segments.DropEmpty();
  bool sealed = false;
  while (!impl_->segments.HasRoom(bytes)) {
    std::optional<SegmentSet::Victim> victim = impl_->segments.Emptiest();
    const bool worth_it = victim.has_value() && victim->live_bytes <= MovedBytesMax(victim->size);
    if (!worth_it && !sealed) {
      // What died in the segment being written counts too.
      impl_->segments.SealActive();
      impl_->reclaimed_segments += impl_->segments.DropEmpty();
      sealed = true;
      continue;
    }
    if (!worth_it) {
      const SegmentSet::Totals totals = impl_->segments.totals();
      return absl::ResourceExhaustedError(absl::StrCat(
          "disk tier: ", totals.live_bytes, " of ", totals.used_bytes, " bytes are live, and no ",
          "segment is empty enough to be moved; erase more entries to free ", bytes));
    }
    CAIRN_RETURN_IF_ERROR(impl_->Evacuate(*victim));
    victim.reset();  // our own hold would keep the file
    impl_->reclaimed_segments += impl_->segments.DropEmpty();
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<DiskSegment>> DiskTier::Segments() {
  CAIRN_RETURN_IF_ERROR(impl_->EnsureSurveyed());
  std::vector<DiskSegment> segments;
  for (const SegmentSet::Victim& idle : impl_->segments.Idle()) {
    segments.push_back({.id = idle.segment->id(),
                        .bytes = idle.size,
                        .live_bytes = idle.live_bytes,
                        .live_records = idle.live_records});
  }
  return segments;
}

absl::StatusOr<std::vector<EntryKey>> DiskTier::LiveIn(uint64_t segment) {
  const SegmentHold held = impl_->segments.Find(segment);
  if (held == nullptr) return absl::NotFoundError(absl::StrCat("no segment ", segment));
  CAIRN_ASSIGN_OR_RETURN(const SegmentScan scan, impl_->ScanHeaders(*held));
  std::vector<EntryKey> keys;
  for (const ScannedRecord& record : scan.records) keys.push_back(record.entry.meta.key);
  const auto now = impl_->catalog->MultiGet(keys);
  std::vector<EntryKey> live;
  for (size_t i = 0; i < keys.size(); ++i) {
    // A damaged catalog value is found by whoever wants the entry.
    if (!now[i].ok() || !now[i]->has_value()) continue;
    if ((*now[i])->location == scan.records[i].entry.location) live.push_back(keys[i]);
  }
  return live;
}

absl::Status DiskTier::ReclaimSegment(uint64_t segment) {
  CAIRN_RETURN_IF_ERROR(impl_->EnsureSurveyed());
  const std::lock_guard<std::mutex> one(impl_->reclaim_mutex);
  std::vector<SegmentSet::Victim> idle = impl_->segments.Idle();
  const auto victim = std::find_if(idle.begin(), idle.end(), [&](const SegmentSet::Victim& v) {
    return v.segment->id() == segment;
  });
  if (victim == idle.end()) return absl::OkStatus();
  if (victim->live_bytes > MovedBytesMax(victim->size)) {
    return absl::FailedPreconditionError(
        absl::StrCat("disk tier: ", victim->live_bytes, " of ", victim->size, " bytes of segment ",
                     segment, " are live, too many to move; erase some of them first"));
  }
  CAIRN_RETURN_IF_ERROR(impl_->Evacuate(*victim));
  idle.clear();  // our own holds would keep the file
  impl_->reclaimed_segments += impl_->segments.DropEmpty();
  return absl::OkStatus();
}

absl::StatusOr<SegmentScan> DiskTier::Impl::ScanHeaders(const Segment& segment, uint64_t to) {
  return ScanSegment(files, segment.file(),
                     {.store = store,
                      .segment = segment.id(),
                      .to = to,
                      .check_payload = {},
                      .window_bytes = kHeaderWindowBytes});
}

absl::Status DiskTier::Impl::Evacuate(const SegmentSet::Victim& victim) {
  CAIRN_FAULT_POINT(kReclaimVictim);
  Segment& from = *victim.segment;
  // What lives there is asked of the segment itself, by its headers, not of the whole catalog.
  CAIRN_ASSIGN_OR_RETURN(const SegmentScan scan, ScanHeaders(from));
  CAIRN_FAULT_POINT(kReclaimScanned);
  CAIRN_RETURN_IF_ERROR(MoveLive(scan, from));
  CAIRN_FAULT_POINT(kReclaimMoved);
  if (segments.EmptyWithout(from.id(), 0)) return absl::OkStatus();
  // The catalog names records whose headers are damaged. They cannot be moved, only counted.
  std::vector<CatalogEntry> damaged;
  const absl::Status walked = catalog->ForEach([&](const CatalogEntry& entry) {
    if (entry.location.segment == from.id()) damaged.push_back(entry);
    return true;
  });
  if (!walked.ok() && !absl::IsDataLoss(walked)) return walked;
  const absl::Status why =
      absl::DataLossError(absl::StrCat("the record's header is damaged in ", from.file().path()));
  for (const CatalogEntry& entry : damaged) Quarantine(entry, why);
  if (walked.ok()) {
    segments.AllDied(from.id());
  } else {
    // The catalog is damaged too and does not tell all. Room is made elsewhere.
    segments.Distrust(from.id());
  }
  return absl::OkStatus();
}

absl::Status DiskTier::Impl::MoveLive(const SegmentScan& scan, Segment& from) {
  std::vector<CatalogEntry> live;
  uint64_t bytes = 0;
  for (const ScannedRecord& record : scan.records) {
    CAIRN_ASSIGN_OR_RETURN(const std::optional<CatalogEntry> now, Get(record.entry.meta.key));
    if (!now.has_value() || now->location != record.entry.location) continue;
    if (bytes > 0 && bytes + now->location.bytes > kMoveBytesMax) {
      CAIRN_RETURN_IF_ERROR(Move(live, from));
      live.clear();
      bytes = 0;
    }
    bytes += now->location.bytes;
    live.push_back(*now);
  }
  return Move(live, from);
}

absl::Status DiskTier::Impl::Move(std::span<const CatalogEntry> entries, Segment& from) {
  std::vector<IoBuffer> buffers;
  std::vector<IoRequest> reads;
  for (const CatalogEntry& entry : entries) {
    buffers.emplace_back(entry.location.bytes);
    const uint64_t header_bytes = RecordHeaderBytes(entry.meta);
    reads.push_back(IoRequest::Read(from.file(), entry.location.offset,
                                    buffers.back().bytes().first(header_bytes),
                                    buffers.back().bytes().subspan(header_bytes)));
  }
  files.Submit(reads);
  CAIRN_FAULT_POINT(kReclaimRead);
  std::vector<CatalogEntry> moving;
  std::vector<RecordToWrite> records;
  moving.reserve(entries.size());  // records point into it
  for (size_t i = 0; i < entries.size(); ++i) {
    const absl::Status whole = CheckRead(reads[i], entries[i], from.tag(), RecordCheck::kWhole);
    if (absl::IsDataLoss(whole)) {
      Quarantine(entries[i], whole);
      continue;
    }
    CAIRN_RETURN_IF_ERROR(whole);
    moving.push_back(entries[i]);
    records.push_back({.meta = &moving.back().meta, .payload = reads[i].slices[1]});
  }
  if (records.empty()) return absl::OkStatus();
  CAIRN_ASSIGN_OR_RETURN(HeldRooms room, writer.TakeRoom(records, RoomPurpose::kMove));
  CAIRN_RETURN_IF_ERROR(writer.Write(records, room, RoomPurpose::kMove));
  CAIRN_RETURN_IF_ERROR(writer.Sync(room));
  CAIRN_FAULT_POINT(kReclaimRewritten);
  return Republish(moving, records, room.Take());
}

// The catalog names the new places, of those entries that were not erased meanwhile.
absl::Status DiskTier::Impl::Republish(std::span<const CatalogEntry> entries,
                                       std::span<const RecordToWrite> records,
                                       std::span<const RecordRoom> rooms) {
  const std::lock_guard<std::mutex> held(change_mutex);
  std::vector<RecordToWrite> kept;
  std::vector<RecordRoom> kept_rooms;
  std::vector<RecordRoom> dead_rooms;
  std::vector<RecordLocation> left;
  for (size_t i = 0; i < entries.size(); ++i) {
    const absl::StatusOr<std::optional<CatalogEntry>> now = catalog->Get(entries[i].meta.key);
    if (now.ok() && now->has_value() && (*now)->location == entries[i].location) {
      kept.push_back(records[i]);
      kept_rooms.push_back(rooms[i]);
      left.push_back(entries[i].location);
    } else {
      dead_rooms.push_back(rooms[i]);
    }
  }
  segments.Finish(dead_rooms, RoomOutcome::kKept);
  if (kept.empty()) return absl::OkStatus();
  CAIRN_FAULT_POINT(kReclaimBeforeRepublish);
  CAIRN_RETURN_IF_ERROR(writer.Catalogue(kept, HeldRooms(segments, std::move(kept_rooms))));
  CAIRN_FAULT_POINT(kReclaimRepublished);
  for (const RecordLocation& location : left) {
    segments.Die(location);
    moved_bytes += location.bytes;
  }
  return absl::OkStatus();
}

}  // namespace cairn::store
