// disk_writer.h: the part of the disk tier that publishes: records into segments, then locations
// into the catalog. Put and Reclaim both go through it, so there is one publishing order.
//
// Threads: all methods from any thread. Errors: disk_tier.h.
#ifndef CAIRN_STORE_TIER_DISK_WRITER_H_
#define CAIRN_STORE_TIER_DISK_WRITER_H_

#include <span>
#include <utility>
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

// Room for records, in flight. What is left in it when it goes is given back, with `outcome`.
class HeldRooms {
 public:
  HeldRooms(SegmentSet& segments, std::vector<RecordRoom> rooms)
      : segments_(&segments), rooms_(std::move(rooms)) {}
  HeldRooms(HeldRooms&&) = default;
  HeldRooms& operator=(HeldRooms&&) = delete;
  ~HeldRooms() {
    if (!rooms_.empty()) segments_->Finish(rooms_, outcome);
  }

  std::span<const RecordRoom> rooms() const { return rooms_; }
  std::vector<RecordRoom> Take() { return std::exchange(rooms_, {}); }

  RoomOutcome outcome = RoomOutcome::kUnused;

 private:
  SegmentSet* segments_;
  std::vector<RecordRoom> rooms_;  // a moved-from vector is empty
};

// The steps, each once and in this order. After one that failed let the rooms go.
class DiskWriter {
 public:
  DiskWriter(FileSystem& files, Catalog& catalog, SegmentSet& segments)
      : files_(files), catalog_(catalog), segments_(segments) {}

  absl::StatusOr<HeldRooms> TakeRoom(std::span<const RecordToWrite> records, RoomPurpose purpose);
  // Writes all records with many operations in flight, and checks what is put against its
  // checksums meanwhile (DATA_LOSS: nothing is kept).
  absl::Status Write(std::span<const RecordToWrite> records, HeldRooms& room, RoomPurpose purpose);
  // What was written is durable, but not yet found.
  absl::Status Sync(HeldRooms& room);
  // It is found, durably.
  absl::Status Catalogue(std::span<const RecordToWrite> records, HeldRooms room);

 private:
  // The error as told to callers, and what it means for the rooms; OK does nothing.
  static absl::Status Judge(const absl::Status& status, HeldRooms& room);

  FileSystem& files_;
  Catalog& catalog_;
  SegmentSet& segments_;
};

}  // namespace cairn::store

#endif  // CAIRN_STORE_TIER_DISK_WRITER_H_
