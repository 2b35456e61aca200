#include "store/tier/disk_writer.h"

#include <algorithm>

#include "store/base/fault_point.h"
#include "store/recovery/recovery.h"
#include "store/recovery/store_files.h"

namespace cairn::store {
namespace {

absl::Status Explained(const absl::Status& status) {
  if (!absl::IsResourceExhausted(status)) return status;
  return absl::ResourceExhaustedError(
      absl::StrCat("the file system is full: ", std::string(status.message())));
}

}  // namespace

absl::StatusOr<std::vector<RecordRoom>> DiskWriter::TakeRoom(std::span<const RecordToWrite> records,
                                                             RoomPurpose purpose) {
  std::vector<uint64_t> sizes;
  for (const RecordToWrite& record : records) sizes.push_back(RecordBytes(*record.meta));
  CAIRN_ASSIGN_OR_RETURN(std::vector<RecordRoom> rooms, segments_.Allocate(sizes, purpose));
  CAIRN_FAULT_POINT(kPutRoomTaken);
  return rooms;
}

absl::Status DiskWriter::Write(std::span<const RecordToWrite> records,
                               std::span<const RecordRoom> rooms, RoomPurpose purpose) {
  const absl::Status status = WriteRecords(records, rooms, purpose);
  CAIRN_FAULT_POINT(kPutWritten);
  if (status.ok()) return Sync(rooms);
  // What is damaged says nothing about the device, and a full file system takes the same bytes
  // later. After any other failure nobody knows what the device kept: write there no more.
  const bool usable = absl::IsDataLoss(status) || absl::IsResourceExhausted(status);
  segments_.Finish(rooms, usable ? RoomOutcome::kUnused : RoomOutcome::kBroken);
  return Explained(status);
}

absl::Status DiskWriter::WriteRecords(std::span<const RecordToWrite> records,
                                      std::span<const RecordRoom> rooms, RoomPurpose purpose) {
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
  }
  // What is wrong already must not be stored: it could only be found out on some other day. It is
  // looked at while it is on its way, and nobody is told of it before.
  absl::Status damage;
  files_.Submit(writes, [&](IoRequest& write) {
    CAIRN_FAULT_POINT(kPutRecordWritten);
    if (purpose == RoomPurpose::kMove) return;  // checked when it was read
    const RecordToWrite& record = records[static_cast<size_t>(&write - writes.data())];
    damage.Update(VerifyParts(*record.meta, record.payload));
  });
  for (const IoRequest& write : writes) CAIRN_RETURN_IF_ERROR(write.status);
  if (damage.ok()) return damage;
  return absl::DataLossError(
      absl::StrCat("disk tier: put refused, ", std::string(damage.message())));
}

absl::Status DiskWriter::Sync(std::span<const RecordRoom> rooms) {
  absl::Status status;
  const Segment* synced = nullptr;
  for (const RecordRoom& room : rooms) {
    if (room.segment.get() == synced || !status.ok()) continue;
    synced = room.segment.get();
    status = segments_.Sync(*room.segment);
  }
  CAIRN_FAULT_POINT(kPutSynced);
  if (!status.ok()) segments_.Finish(rooms, RoomOutcome::kBroken);
  return Explained(status);
}

absl::Status DiskWriter::Catalogue(std::span<const RecordToWrite> records,
                                   std::span<const RecordRoom> rooms) {
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
  segments_.Finish(rooms, RoomOutcome::kKept);
  CAIRN_FAULT_POINT(kPublishFinished);
  return status;
}

}  // namespace cairn::store
