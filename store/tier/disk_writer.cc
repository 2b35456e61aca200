#include "store/tier/disk_writer.h"

#include <algorithm>

#include "store/base/fault_point.h"
#include "store/recovery/recovery.h"
#include "store/recovery/store_files.h"

namespace cairn::store {

absl::StatusOr<HeldRooms> DiskWriter::TakeRoom(std::span<const RecordToWrite> records,
                                               RoomPurpose purpose) {
  std::vector<uint64_t> sizes;
  for (const RecordToWrite& record : records) sizes.push_back(RecordBytes(*record.meta));
  CAIRN_ASSIGN_OR_RETURN(std::vector<RecordRoom> rooms, segments_.Allocate(sizes, purpose));
  CAIRN_FAULT_POINT(kPutRoomTaken);
  return HeldRooms(segments_, std::move(rooms));
}

absl::Status DiskWriter::Write(std::span<const RecordToWrite> records, HeldRooms& room,
                               RoomPurpose purpose) {
  const std::span<const RecordRoom> rooms = room.rooms();
  uint64_t header_bytes = 0;
  for (const RecordToWrite& record : records) header_bytes += RecordHeaderBytes(*record.meta);
  IoBuffer headers(header_bytes);
  std::span<uint8_t> left = headers.bytes();
  std::vector<IoRequest> writes;
  for (size_t i = 0; i < records.size(); ++i) {
    const EntryMeta& meta = *records[i].meta;
    const std::span<uint8_t> header = left.first(RecordHeaderBytes(meta));
    left = left.subspan(header.size());
    EncodeRecordHeader(meta, rooms[i].location, rooms[i].segment->tag(), header);
    writes.push_back(IoRequest::Write(rooms[i].segment->file(), rooms[i].location.offset, header,
                                      records[i].payload));
    if (purpose == RoomPurpose::kPut) writes.back().parts = meta.parts;
  }
  // What is wrong already must not be stored: it could only be found out on some other day. It is
  // looked at on its way, or while it is on it, and nobody is told of it before.
  absl::Status damage;
  files_.Submit(writes, [&](IoRequest& write) {
    CAIRN_FAULT_POINT(kPutRecordWritten);
    if (purpose == RoomPurpose::kMove) return;  // checked when it was read
    const RecordToWrite& record = records[static_cast<size_t>(&write - writes.data())];
    if (write.parts_seen == PartsSeen::kMatch) return;
    damage.Update(VerifyParts(*record.meta, record.payload));
    if (write.parts_seen == PartsSeen::kDiffer) {
      damage.Update(absl::DataLossError("other bytes came to the device than lie in memory"));
    }
  });
  if (!damage.ok()) {
    return absl::DataLossError(
        absl::StrCat("disk tier: put refused, ", std::string(damage.message())));
  }
  CAIRN_FAULT_POINT(kPutWritten);
  absl::Status status;
  for (const IoRequest& write : writes) status.Update(write.status);
  return Judge(status, room);
}

absl::Status DiskWriter::Sync(HeldRooms& room) {
  absl::Status status;
  const Segment* synced = nullptr;
  for (const RecordRoom& at : room.rooms()) {
    if (at.segment.get() == synced) continue;
    synced = at.segment.get();
    if (status.ok()) status.Update(at.segment->file().Sync());
  }
  CAIRN_FAULT_POINT(kPutSynced);
  return Judge(status, room);
}

absl::Status DiskWriter::Judge(const absl::Status& status, HeldRooms& room) {
  if (status.ok()) return status;
  // A full file system takes the same bytes later. After any other failure, of a sync above all,
  // nobody knows what the device kept: write there no more.
  const bool full = absl::IsResourceExhausted(status);
  room.outcome = full ? RoomOutcome::kUnused : RoomOutcome::kBroken;
  if (!full) return status;
  return absl::ResourceExhaustedError(
      absl::StrCat("the file system is full: ", std::string(status.message())));
}

absl::Status DiskWriter::Catalogue(std::span<const RecordToWrite> records, HeldRooms room) {
  const std::span<const RecordRoom> rooms = room.rooms();
  CatalogBatch batch;
  for (size_t i = 0; i < records.size(); ++i) {
    batch.puts.push_back({.meta = *records[i].meta, .location = rooms[i].location});
  }
  batch.values = {{kValueWatermark, EncodeWatermark(segments_.watermark(rooms))}};
  segments_.AddLive(rooms);
  CAIRN_FAULT_POINT(kPublishCounted);
  const absl::Status status = catalog_.Apply(batch, /*sync=*/true);
  CAIRN_FAULT_POINT(kPublishCatalogued);
  // After a failure nobody knows whether the batch will be found one day, so the records stay
  // counted; Reclaim finds out.
  segments_.Finish(room.Take(), RoomOutcome::kKept);
  CAIRN_FAULT_POINT(kPublishFinished);
  return status;
}

}  // namespace cairn::store
