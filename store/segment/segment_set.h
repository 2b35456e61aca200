// segment_set.h: the segment files of a store: where the next record goes, how much room there is,
// what of each file is still alive, and when a file may go.
//
// It hands out room and holds; it does not read or write records, nor know keys.
//
// Capacity: the sum of the files' sizes (space taken ahead included) never exceeds capacity_bytes.
// Puts leave one segment's worth of it free, so that Reclaim always has a place to move to.
//
// Threads:   all methods from any thread. Files are made under a lock of their own, so looking a
//            segment up never waits for the device.
// Ownership: a SegmentHold keeps its file from being deleted; a segment that was dropped meanwhile
//            goes, and gives its bytes back, with the last hold.
// Errors:    RESOURCE_EXHAUSTED: over capacity, or the file system is full; the message says which.
#ifndef CAIRN_STORE_SEGMENT_SEGMENT_SET_H_
#define CAIRN_STORE_SEGMENT_SEGMENT_SET_H_

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "store/base/clock.h"
#include "store/device/file_system.h"
#include "store/segment/record_format.h"

namespace cairn::store {

class SegmentSet;

class Segment {
 public:
  ~Segment();
  uint64_t id() const { return id_; }
  uint64_t tag() const { return tag_; }
  File& file() const { return *file_; }

 private:
  friend class SegmentSet;
  Segment(SegmentSet& set, uint64_t id, uint64_t tag, std::unique_ptr<File> file, uint64_t size)
      : set_(set), id_(id), tag_(tag), file_(std::move(file)), size_(size) {}

  // REQUIRES: the set's mutex_.
  bool Holds(const RecordLocation& at) const {
    return at.bytes <= size_ && at.offset <= size_ - at.bytes;
  }

  SegmentSet& set_;
  const uint64_t id_;
  const uint64_t tag_;
  const std::unique_ptr<File> file_;
  // Guarded by the set's mutex_.
  uint64_t size_;           // of the file
  uint64_t append_at_ = 0;  // end of the last record; size_ when sealed
  bool sealed_ = true;      // no more records
  bool dropped_ = false;    // the file goes with the last hold
  // Of a segment found at start they are differences to what was there, until it is surveyed.
  uint64_t live_bytes_ = 0;
  uint64_t live_records_ = 0;
  bool surveyed_ = true;
  uint64_t found_end_ = 0;  // of what was written when it was found at start
  uint64_t cut_bytes_ = 0;  // of size_, cut off the file and not yet known to be gone for good
  uint64_t in_flight_ = 0;  // rooms not yet finished
};

using SegmentHold = std::shared_ptr<Segment>;

// A place for one record, in flight until Finish.
struct RecordRoom {
  SegmentHold segment;
  RecordLocation location;
};

// What of the log is settled: every record of a segment before `segment`, every one before `end` in
// it, and every record with a sequence below `sequence`, is either catalogued or dead. Recovery
// looks only beyond it.
struct Watermark {
  uint64_t segment = 0;
  uint64_t end = 0;
  uint64_t sequence = 0;
};

// What became of a room.
enum class RoomOutcome : uint8_t {
  kKept,    // holds a record, live or not
  kUnused,  // holds nothing: written again if it is the last of its segment
  kBroken,  // the device failed there: the segment is written no more
};

enum class RoomPurpose : uint8_t { kPut, kMove };

class SegmentSet {
 public:
  struct Options {
    std::string directory;  // of the segment files; exists
    uint64_t capacity_bytes = 0;
    uint64_t segment_bytes = 0;
    StoreUuid store{};
  };
  // A file found at start.
  struct Found {
    uint64_t id = 0;
    std::unique_ptr<File> file;
    uint64_t size = 0;
    uint64_t append_at = 0;  // size: full
  };
  struct Totals {
    uint64_t used_bytes = 0;
    uint64_t live_bytes = 0;  // this and the next: of surveyed segments
    uint64_t live_records = 0;
    uint64_t segments = 0;
  };
  struct Life {
    uint64_t bytes = 0;
    uint64_t records = 0;
    void operator+=(const Life& more) {
      bytes += more.bytes;
      records += more.records;
    }
  };
  using Survey = std::map<uint64_t, Life>;  // by segment
  struct Unsurveyed {
    SegmentHold segment;
    uint64_t end = 0;  // of what was written when it was found
  };
  struct Victim {
    SegmentHold segment;
    uint64_t size = 0;
    uint64_t live_bytes = 0;
    uint64_t live_records = 0;
  };

  // The last of `found` is written on if it has room. `next` is beyond every number in use.
  SegmentSet(const Options& options, FileSystem& files, Clock& clock, std::vector<Found> found,
             Watermark next);
  ~SegmentSet();

  // Room for records of these sizes, all or none.
  absl::StatusOr<std::vector<RecordRoom>> Allocate(std::span<const uint64_t> sizes,
                                                   RoomPurpose purpose);
  // The records count as live, though still in flight: before they can be found, so that a record
  // never dies before it lived.
  void AddLive(std::span<const RecordRoom> rooms);
  void Finish(std::span<const RecordRoom> rooms, RoomOutcome outcome);

  // What lived in the segments found at start, whatever was added and died since. Before it is
  // told, none of them is dropped or offered as a victim. Of those in `unknown` nobody can tell:
  // they stay as they are.
  void EndSurvey(const Survey& found, const std::set<uint64_t>& unknown = {});
  std::vector<Unsurveyed> NotSurveyed() const;
  // What lives in it is not known after all: it stays until the store is opened again.
  void Distrust(uint64_t id);
  // Whether there is such a place.
  bool Holds(const RecordLocation& location) const;

  // Empty if there is no such segment (any more).
  SegmentHold Find(uint64_t id) const;
  // A live record died.
  void Die(const RecordLocation& location);
  // Nothing names the segment any more, whatever was counted.
  void AllDied(uint64_t id);
  // Whether it is sealed, has no live record but `dying` ones, and none on its way.
  bool EmptyWithout(uint64_t id, uint64_t dying) const;
  // Deletes all sealed segments without live records. Returns how many.
  uint64_t DropEmpty();

  // No more records into the one that is being written, if it holds dead ones.
  void SealActive();
  // The sealed segments, idle and not yet dropped, by number.
  std::vector<Victim> Idle() const;
  // That of them with the least share of live bytes.
  std::optional<Victim> Emptiest() const;
  // Whether a put of records of `bytes` in all (headers included) would find room, however they
  // fall into files.
  bool HasRoom(uint64_t bytes) const;

  // As settled once the records of `settling` are catalogued too.
  Watermark watermark(std::span<const RecordRoom> settling) const;
  Totals totals() const;
  uint64_t capacity_bytes() const { return options_.capacity_bytes; }
  uint64_t segment_bytes() const { return options_.segment_bytes; }

  static std::string FileName(uint64_t id);
  static std::optional<uint64_t> ParseFileName(const std::string& name);
  // Segments of a small store are smaller than asked, so that there are several.
  static uint64_t EffectiveSegmentBytes(uint64_t capacity_bytes, uint64_t segment_bytes);

 private:
  friend class Segment;
  using Lock = std::lock_guard<std::mutex>;

  uint64_t PutLimit(RoomPurpose purpose) const;
  // Sizes of the new files that records of `sizes` need after the active one, as it is now;
  // RESOURCE_EXHAUSTED.
  absl::StatusOr<std::vector<uint64_t>> Plan(std::span<const uint64_t> sizes, RoomPurpose purpose,
                                             const Lock& held) const;
  absl::StatusOr<SegmentHold> Create(uint64_t size);
  // No more records into it. The end that is cut off stays counted until GiveBackEnd.
  void Seal(Segment& segment, const Lock& held);
  // Only what is synced cannot come back with a power cut, when another file has taken its room.
  absl::Status GiveBackEnd(Segment& segment);

  const Options options_;
  FileSystem& files_;
  Clock& clock_;

  std::mutex allocate_mutex_;  // before mutex_; held while files are made
  mutable std::mutex mutex_;
  std::map<uint64_t, SegmentHold> segments_;  // guarded by mutex_, as are all below
  SegmentHold active_;                        // written on; may be empty
  uint64_t coming_ = 0;                       // being made to be the active one; 0: none
  std::map<uint64_t, std::pair<uint64_t, uint64_t>> in_flight_;  // sequence -> segment, offset
  uint64_t next_segment_ = 1;
  uint64_t next_sequence_ = 1;
  uint64_t used_bytes_ = 0;
};

}  // namespace cairn::store

#endif  // CAIRN_STORE_SEGMENT_SEGMENT_SET_H_
