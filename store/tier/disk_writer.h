// disk_writer.h: the part of the disk tier that publishes: records into segments, then locations
// into the catalog. Put and Reclaim both go through it, so there is one publishing order.
//
// Threads: all methods from any thread. Errors: disk_tier.h.
#ifndef CAIRN_STORE_TIER_DISK_WRITER_H_
#define CAIRN_STORE_TIER_DISK_WRITER_H_

#include <mutex>
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

  // Takes room, writes all records with many operations in flight, and checks what is put against
  // its checksums meanwhile (DATA_LOSS: nothing is kept). The rooms are neither durable nor found
  // yet: give them to Sync, or back to SegmentSet::Finish.
  absl::StatusOr<std::vector<RecordRoom>> Write(std::span<const RecordToWrite> records,
                                                RoomPurpose purpose);
  // Makes written rooms durable; if it cannot, none of them is kept. Then give them to Catalogue,
  // or back to SegmentSet::Finish.
  absl::Status Sync(std::span<const RecordRoom> rooms);
  // Write and Sync.
  absl::StatusOr<std::vector<RecordRoom>> WriteDurably(std::span<const RecordToWrite> records,
                                                       RoomPurpose purpose);
  // Makes them found, durably, and finishes the rooms either way. Looks at the records' meta only.
  absl::Status Catalogue(std::span<const RecordToWrite> records, std::span<const RecordRoom> rooms);

 private:
  absl::Status GiveUp(std::span<const RecordRoom> rooms, const absl::Status& why);

  FileSystem& files_;
  Catalog& catalog_;
  SegmentSet& segments_;
  // Held from a sync to its verdict on the segment: see Sync.
  std::mutex sync_mutex_;
};

}  // namespace cairn::store

#endif  // CAIRN_STORE_TIER_DISK_WRITER_H_
