// disk_tier.h: entries on disk, in append-only segments with a catalog beside them.
//
// Publishing order: payload and record header durable (fdatasync), then the catalog (synced). So an
// acknowledged Put survives kill -9 and power loss, and anything less than whole is never found.
// Each record describes itself; the catalog can be rebuilt from the segments alone.
//
// Reads verify: every part matches the checksum that the catalog, itself checksummed, has for it;
// so another entry's bytes, in the wrong place or exchanged, are damage like any other. Where
// damage is looked for (RecordCheck::kWhole, Reclaim) the record's own header must name the same
// entry too. A mismatch is DATA_LOSS: the entry is withdrawn (quarantine). That is, it is removed
// from the catalog and counted, its owner is told (OnWithdrawn), and its record stays where it is,
// for whoever wants to look, until its segment goes.
//
// Capacity: the sum of the segment files' sizes never exceeds capacity_bytes. Put answers
// RESOURCE_EXHAUSTED when an entry does not fit; the owner erases entries (it knows their worth)
// and tries again. Erased room comes back by segment: an empty one is deleted; Reclaim moves the
// live entries of the emptiest ones. An owner that knows what its entries are worth chooses a
// segment itself: Segments, LiveIn, Erase of what is not worth moving, ReclaimSegment.
//
// Threads:   all methods from any thread.
// Buffers:   payload and destination spans are kIoAlignment-aligned and RoundUpToIo(payload_bytes)
// long; the tail
//            beyond the payload is written as given and read back as stored.
// Errors:    RESOURCE_EXHAUSTED (over capacity, or the file system is full: the message says
// which),
//            DATA_LOSS (above), UNAVAILABLE (device error).
#ifndef CAIRN_STORE_TIER_DISK_TIER_H_
#define CAIRN_STORE_TIER_DISK_TIER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "store/base/clock.h"
#include "store/base/entry.h"
#include "store/base/random.h"
#include "store/base/status.h"
#include "store/recovery/recovery_report.h"

namespace cairn::store {

class FileSystem;  // store/device/file_system.h
class Catalog;     // store/index/catalog.h

struct DiskPut {
  const EntryMeta* meta = nullptr;
  std::span<const uint8_t> payload;
};

struct DiskRead {
  EntryKey key;
  std::span<uint8_t> destination;
  // Filled by ReadBatch.
  absl::Status status;
  EntryMeta meta;
};

// How much of a record a read looks at.
enum class RecordCheck : uint8_t {
  kPayload,  // what is given out; one I/O an entry
  kWhole,    // its header too, which only a rebuild of the catalog needs
};

// A segment that may be reclaimed: written to its end, and nothing on its way into it.
struct DiskSegment {
  uint64_t id = 0;
  uint64_t bytes = 0;       // of its file
  uint64_t live_bytes = 0;  // records that the catalog names
  uint64_t live_records = 0;
};

struct DiskTierStats {
  uint64_t capacity_bytes = 0;
  uint64_t used_bytes = 0;  // sizes of all segment files
  uint64_t live_bytes = 0;  // records that the catalog still names; this and the next: surveyed
  uint64_t entries = 0;
  uint64_t segments = 0;
  uint64_t checksum_failures = 0;  // entries found damaged, each counted once
  uint64_t dropped_entries = 0;    // catalogued at a place that was not there
  uint64_t mended_entries = 0;     // of a damaged catalog, catalogued again by Survey
  bool surveyed = false;
  uint64_t reclaimed_segments = 0;
  uint64_t put_bytes = 0;    // records written by Put
  uint64_t moved_bytes = 0;  // records written again by Reclaim
  // What the device wrote for each byte that was put.
  double write_amplification() const {
    return put_bytes == 0
               ? 1.0
               : static_cast<double>(put_bytes + moved_bytes) / static_cast<double>(put_bytes);
  }
};

class DiskTier {
 public:
  struct Options {
    std::string directory;
    uint64_t capacity_bytes = 0;
    // At most a 32nd of the capacity is used, so that there are several to reclaim among. Puts
    // leave one segment's worth of the capacity free, for Reclaim to move entries to.
    uint64_t segment_bytes = 256ull << 20;
    Random* random = nullptr;  // for a new store's identity; null: SystemRandom()
  };
  // FAILED_PRECONDITION: another process holds the directory, or another format version wrote it.
  // RESOURCE_EXHAUSTED: no room for the first files. Everything else that is damaged is repaired
  // around and reported.
  static absl::StatusOr<std::unique_ptr<DiskTier>> Open(const Options& options, FileSystem& files,
                                                        std::unique_ptr<Catalog> catalog,
                                                        Clock& clock, RecoveryReport* report);
  ~DiskTier();

  // From here on `told` learns of each entry that goes without having been erased: DATA_LOSS, it is
  // damaged; NOT_FOUND, what the catalog names is not there. Whichever call comes upon it tells,
  // once, before it returns and before the entry can be put again. The tier's locks are held: it
  // must not be called from there. Null: nobody is told.
  void OnWithdrawn(std::function<void(const EntryKey&, const absl::Status& why)> told);

  // Durable on return; visible together or, after an error, not at all. Entries that are there
  // already are skipped silently (same key, same bytes).
  absl::Status Put(std::span<const DiskPut> entries);

  // A put under way. Nothing of it is found before Publish; given up, it leaves nothing behind.
  // What was given to Prepare stays as it is for so long, and the tier outlives it.
  class Pending {
   public:
    Pending(Pending&&) noexcept;
    Pending& operator=(Pending&&) noexcept;
    ~Pending();

   private:
    friend class DiskTier;
    struct State;
    explicit Pending(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
  };
  // Put in its steps, for who has the device write one batch while another is synced and
  // catalogued, and a third is given room. Each once, in this order; steps of several puts may run
  // at the same time. After one that failed give the put up, a later one first: so its room comes
  // back as a whole.
  // Prepare waits for whoever puts one of these keys: never call it with a key of one that the
  // caller himself has pending.
  absl::StatusOr<Pending> Prepare(std::span<const DiskPut> entries);
  absl::Status Write(Pending& put);
  absl::Status Publish(Pending& put);

  // Walks what the catalog held at Open: counts what lives in which segment, forgets what names a
  // place that is not there, and shows every other entry to the visitor (may be null). Entries that
  // changed since Open are shown as they were. Puts and reads go on meanwhile; Reclaim waits for it
  // and, if nobody called it, does it first. A visitor that returns false ends it early, to be
  // begun again by the next call. What a damaged catalog does not tell is asked of the segments'
  // record headers, catalogued again and shown; the catalog is made anew at the next Open all the
  // same. DATA_LOSS: in some segments that was not all, as headers are damaged too: entries in them
  // may not have been shown, and these segments stay until the next Open.
  absl::Status Survey(const std::function<bool(const EntryMeta&)>& visit);

  // nullopt is a miss. Reads the catalog only.
  absl::StatusOr<std::optional<EntryMeta>> Find(const EntryKey& key);
  bool Contains(const EntryKey& key);
  // One result a key; what cannot be read is a miss.
  std::vector<std::optional<EntryMeta>> FindMany(std::span<const EntryKey> keys);

  // Reads all, many in flight, each verified while others arrive; each item has its own status
  // (NOT_FOUND here means a miss).
  void ReadBatch(std::span<DiskRead> reads, RecordCheck check = RecordCheck::kPayload);

  absl::Status Erase(std::span<const EntryKey> keys);
  // Frees whole segments until at least `bytes` can be put, moving live entries out of the emptiest
  // ones that are empty enough (MovedBytesMax).
  // RESOURCE_EXHAUSTED if erasing more is needed first.
  absl::Status Reclaim(uint64_t bytes);

  // Of a segment of so many bytes, what may be moved: a fifth. What a segment gives back is what
  // puts may then write, so for each byte put at most share / (1 - share) = 0.25 bytes are moved:
  // write amplification stays below 1.25 whatever is erased in what order.
  static constexpr uint64_t MovedBytesMax(uint64_t segment_bytes) { return segment_bytes / 5; }
  // What may be reclaimed now, the longest written first. Surveys first, if nobody did.
  absl::StatusOr<std::vector<DiskSegment>> Segments();
  // The keys of what lives in it, asked of its record headers: some kilobytes of reading a record.
  // NOT_FOUND: no such segment.
  absl::StatusOr<std::vector<EntryKey>> LiveIn(uint64_t segment);
  // Moves what lives in it and deletes it. OK too if it has gone already. FAILED_PRECONDITION: more
  // than MovedBytesMax lives there, erase first.
  absl::Status ReclaimSegment(uint64_t segment);

  // Every catalogued entry once, in no order, without payloads. Stops early when the visitor
  // returns false.
  absl::Status ForEach(const std::function<bool(const EntryMeta&)>& visit);

  DiskTierStats stats() const;

 private:
  struct Impl;
  explicit DiskTier(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace cairn::store

#endif  // CAIRN_STORE_TIER_DISK_TIER_H_
