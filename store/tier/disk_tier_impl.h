// disk_tier_impl.h: the inside of the disk tier, for the files that implement it: disk_tier.cc
// (find, read, erase), disk_put.cc, disk_reclaim.cc and disk_survey.cc.
//
// Threads: as disk_tier.h; the locks say what they guard. Order: reclaim_mutex, change_mutex.
#ifndef CAIRN_STORE_TIER_DISK_TIER_IMPL_H_
#define CAIRN_STORE_TIER_DISK_TIER_IMPL_H_

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "store/recovery/recovery.h"
#include "store/recovery/store_files.h"
#include "store/segment/segment_scanner.h"
#include "store/segment/segment_set.h"
#include "store/tier/disk_tier.h"
#include "store/tier/disk_writer.h"

namespace cairn::store {

inline bool AlignedSpan(std::span<const uint8_t> bytes) {
  return reinterpret_cast<uintptr_t>(bytes.data()) % kIoAlignment == 0;
}

// What a finished read of the record at `entry.location` amounts to: DATA_LOSS unless every part
// matches its checksum, and for kWhole the header names this entry at this place. The payload is
// the read's second slice; the first is the header, or empty where it is not asked for.
absl::Status CheckRead(const IoRequest& read, const CatalogEntry& entry, uint64_t tag,
                       RecordCheck check);

struct DiskTier::Impl {
  // A read that is on its way: the catalog's word, and a hold on the segment it names.
  struct Located {
    CatalogEntry entry;
    SegmentHold segment;
  };

  Impl(const Options& o, FileSystem& f, std::unique_ptr<Catalog> c, std::unique_ptr<FileLock> l,
       Clock& clock, RecoveredStore found)
      : options(o),
        store(found.store),
        files(f),
        lock(std::move(l)),
        catalog(std::move(c)),
        segments(
            {.directory = SegmentsDirectory(o.directory),
             .capacity_bytes = o.capacity_bytes,
             .segment_bytes = SegmentSet::EffectiveSegmentBytes(o.capacity_bytes, o.segment_bytes),
             .store = found.store},
            f, clock, std::move(found.segments), found.next),
        writer(f, *catalog, segments),
        at_open(catalog->Snapshot()) {}

  // Those of the entries that are not there yet.
  absl::StatusOr<std::vector<RecordToWrite>> Absent(std::span<const DiskPut> entries);
  absl::StatusOr<std::optional<CatalogEntry>> Get(const EntryKey& key);
  absl::Status EnsureSurveyed();
  using Visitor = std::function<bool(const EntryMeta&)>;
  // What is found by it. Counted apart first: a survey that ends early leaves nothing half counted.
  struct SurveyWork {
    SegmentSet::Survey live;
    std::vector<CatalogEntry> stale;
    std::set<uint64_t> unknown;  // segments of which not all is known
    bool stopped = false;        // by the visitor
  };
  absl::Status SurveyLocked(const Visitor& visit);
  absl::Status WalkCatalog(const Visitor& visit, SurveyWork& work);
  absl::Status WalkSegments(const Visitor& visit, SurveyWork& work);
  absl::StatusOr<bool> CatalogueAgain(const CatalogEntry& entry);
  std::vector<absl::StatusOr<std::optional<Located>>> Locate(std::span<const EntryKey> keys);
  absl::Status ForgetStale(std::span<const CatalogEntry> entries);
  // The request for one located entry; an error where the destination is unfit.
  absl::StatusOr<IoRequest> ReadRequest(const Located& at, std::span<uint8_t> destination,
                                        std::span<uint8_t> header) const;
  void Quarantine(const CatalogEntry& entry, const absl::Status& why);
  absl::Status ForgetDamaged(const EntryKey& key, const absl::Status& why);
  absl::Status EraseBatch(const CatalogBatch& batch, std::span<const CatalogEntry> dead);
  absl::Status SettleDoubt(const EntryKey& key);
  absl::StatusOr<SegmentScan> ScanHeaders(const Segment& segment, uint64_t to = UINT64_MAX);
  absl::Status Evacuate(const SegmentSet::Victim& victim);
  absl::Status MoveLive(const SegmentScan& scan, Segment& from);
  absl::Status Move(std::span<const CatalogEntry> entries, Segment& from);
  absl::Status Republish(std::span<const CatalogEntry> entries,
                         std::span<const RecordToWrite> records, std::span<const RecordRoom> rooms);

  const Options options;
  const StoreUuid store;
  FileSystem& files;
  const std::unique_ptr<FileLock> lock;
  const std::unique_ptr<Catalog> catalog;
  SegmentSet segments;
  DiskWriter writer;

  // Keys that a Put is writing: a second Put of the same key waits for its outcome.
  std::mutex claim_mutex;
  std::condition_variable claim_changed;
  absl::flat_hash_set<EntryKey> claimed;  // guarded by claim_mutex

  // Orders everything that changes or removes a location that can be found. Puts only add keys that
  // are absent and need not take it.
  std::mutex change_mutex;
  std::function<void(const EntryKey&, const absl::Status&)> withdrawn;  // guarded by change_mutex
  // Keys whose erasing failed. The catalog shows them still, but after such a failure nobody knows
  // whether it will after the next start; so a Put does not take them for stored.
  absl::flat_hash_set<EntryKey> doubtful;  // guarded by change_mutex
  std::atomic<size_t> doubts{0};           // of doubtful
  std::mutex reclaim_mutex;                // one Reclaim at a time; before change_mutex

  std::mutex survey_mutex;                   // before change_mutex; held while surveying
  std::unique_ptr<CatalogSnapshot> at_open;  // until surveyed; guarded by survey_mutex
  absl::Status survey_status;                // guarded by survey_mutex
  std::atomic<bool> surveyed{false};
  std::atomic<uint64_t> dropped_entries{0};
  std::atomic<uint64_t> mended_entries{0};

  std::atomic<uint64_t> checksum_failures{0};
  std::atomic<uint64_t> reclaimed_segments{0};
  std::atomic<uint64_t> put_bytes{0};
  std::atomic<uint64_t> moved_bytes{0};
};

}  // namespace cairn::store

#endif  // CAIRN_STORE_TIER_DISK_TIER_IMPL_H_
