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

  // Takes room, writes all records with many operations in flight, and checks what is put against
  // its checksums meanwhile (DATA_LOSS: nothing is kept). The rooms are written then and no more:
  // give them to Sync, or back to SegmentSet::Finish.
  absl::StatusOr<std::vector<RecordRoom>> Write(std::span<const RecordToWrite> records,
                                                RoomPurpose purpose);
  // What was written to the rooms is durable, but not yet found: give them to Catalogue, or back.
  // An error has given them back.
  absl::Status Sync(std::span<const RecordRoom> rooms);
  // Makes them found, durably, and finishes the rooms either way.
  absl::Status Catalogue(std::span<const RecordToWrite> records, std::span<const RecordRoom> rooms);

 private:
  // The error as told to callers, the rooms given back; OK does nothing.
  absl::Status GiveBackAfter(const absl::Status& status, std::span<const RecordRoom> rooms);

  FileSystem& files_;
  Catalog& catalog_;
  SegmentSet& segments_;
};

}  // namespace cairn::store

#endif  // CAIRN_STORE_TIER_DISK_WRITER_H_
