// disk_writer.h: the part of the disk tier that publishes: records into segments, then locations
// into the catalog. Put and Reclaim both go through it, so there is one publishing order.
//
// Threads: all methods from any thread. Errors: disk_tier.h.
#ifndef CAIRN_STORE_TIER_DISK_WRITER_H_
#define CAIRN_STORE_TIER_DISK_WRITER_H_

#include <span>
#include <vector>

#include "store/base/entry.h"
#include "store/base/status.h"
#include "store/device/file_system.h"
#include "store/index/catalog.h"
#include "store/segment/segment_set.h"

namespace cairn::store {

struct RecordToWrite {
  const EntryMeta* meta = nullptr;
  std::span<const uint8_t> payload;  // aligned, whole I/O units
};

class DiskWriter {
 public:
  DiskWriter(FileSystem& files, Catalog& catalog, SegmentSet& segments)
      : files_(files), catalog_(catalog), segments_(segments) {}

  // Room for all records or none. Give it to Write, or back to SegmentSet::Finish.
  absl::StatusOr<std::vector<RecordRoom>> TakeRoom(std::span<const RecordToWrite> records,
                                                   RoomPurpose purpose);
  // Writes the records into their rooms with many operations in flight, checks what is put against
  // its checksums meanwhile (DATA_LOSS), and syncs. The rooms are then durable but not yet found:
  // give them to Catalogue, or back to SegmentSet::Finish. After an error none is kept, and they
  // are given back already.
  absl::Status Write(std::span<const RecordToWrite> records, std::span<const RecordRoom> rooms,
                     RoomPurpose purpose);
  // Makes them found, durably, and finishes the rooms either way. Looks at the records' meta only.
  absl::Status Catalogue(std::span<const RecordToWrite> records, std::span<const RecordRoom> rooms);

 private:
  absl::Status WriteRecords(std::span<const RecordToWrite> records,
                            std::span<const RecordRoom> rooms, RoomPurpose purpose);
  absl::Status Sync(std::span<const RecordRoom> rooms);

  FileSystem& files_;
  Catalog& catalog_;
  SegmentSet& segments_;
};

}  // namespace cairn::store

#endif  // CAIRN_STORE_TIER_DISK_WRITER_H_
