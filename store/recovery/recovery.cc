#include "store/recovery/recovery.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "absl/container/flat_hash_map.h"
#include "store/base/fault_point.h"
#include "store/recovery/store_files.h"
#include "store/segment/segment_scanner.h"

namespace cairn::store {
namespace {

constexpr size_t kEntriesPerBatch = 1000;

// What is known of one segment while recovering.
struct Known {
  SegmentFile* file = nullptr;
  uint64_t end = kSegmentHeaderBytes;  // of the last record worth keeping
  bool open = false;                   // may be written on
  bool records = false;                // has any, dead or alive
  bool headed = false;                 // its header page is sound and ours
};

class Recovery {
 public:
  Recovery(const std::string& directory, FileSystem& files, Catalog& catalog, Random& random,
           RecoveryReport& report)
      : directory_(directory), files_(files), catalog_(catalog), random_(random), report_(report) {}

  absl::StatusOr<RecoveredStore> Run() {
    CAIRN_FAULT_POINT(kRecoverBegun);
    CAIRN_RETURN_IF_ERROR(files_.MakeDirectory(SegmentsDirectory(directory_)));
    CAIRN_ASSIGN_OR_RETURN(segment_files_,
                           OpenSegmentFiles(directory_, files_, OpenMode::kReadWrite));
    CAIRN_FAULT_POINT(kRecoverFilesOpened);
    CAIRN_RETURN_IF_ERROR(FindStore());
    CAIRN_FAULT_POINT(kRecoverStoreFound);
    for (SegmentFile& file : segment_files_) {
      const bool headed = file.header_status.ok() && file.header.store == store_;
      known_.emplace(file.id, Known{.file = &file, .headed = headed});
      next_.segment = std::max(next_.segment, file.id + 1);
    }
    CAIRN_ASSIGN_OR_RETURN(const bool good, OpenCatalog());
    CAIRN_FAULT_POINT(kRecoverCatalogOpened);
    if (good) {
      CAIRN_RETURN_IF_ERROR(AdoptTails());
    } else {
      CAIRN_RETURN_IF_ERROR(Rebuild());
    }
    CAIRN_RETURN_IF_ERROR(RemoveUnfinished());
    CAIRN_RETURN_IF_ERROR(CutTails());
    CAIRN_FAULT_POINT(kRecoverBeforeSettle);
    CAIRN_RETURN_IF_ERROR(Settle());
    CAIRN_FAULT_POINT(kRecoverSettled);
    return Result();
  }

 private:
  absl::Status FindStore();
  absl::StatusOr<bool> OpenCatalog();
  bool CatalogIsNew();
  absl::Status GiveUpCatalog(const absl::Status& why);
  void SayRebuild(const std::string& why) {
    report_.catalog_rebuilt = true;
    report_.catalog_trouble = why;
  }
  absl::Status AdoptTails();
  absl::Status Rebuild();
  absl::Status RemoveUnfinished();
  absl::Status CutTails();
  absl::Status Settle();
  RecoveredStore Result();

  // Of several records of a key, the one that was written last.
  using Newest = absl::flat_hash_map<EntryKey, CatalogEntry>;
  static void Take(Newest& newest, CatalogEntry entry) {
    const auto [best, first] = newest.try_emplace(entry.meta.key);
    if (first || best->second.location.sequence < entry.location.sequence) {
      best->second = std::move(entry);
    }
  }
  absl::Status Catalogue(Newest& newest);

  const std::string directory_;
  FileSystem& files_;
  Catalog& catalog_;
  Random& random_;
  RecoveryReport& report_;

  StoreUuid store_{};
  std::vector<SegmentFile> segment_files_;
  std::map<uint64_t, Known> known_;
  Watermark mark_;  // as the catalog has it
  Watermark next_{.segment = 1, .end = kSegmentHeaderBytes, .sequence = 1};  // beyond all in use
};

// The store's identity: the FORMAT file's, else that of the first sound segment, else a new one.
absl::Status Recovery::FindStore() {
  CAIRN_ASSIGN_OR_RETURN(const std::optional<StoreUuid> written,
                         ReadFormatFile(directory_, files_));
  if (written.has_value()) {
    store_ = *written;
    return absl::OkStatus();
  }
  const auto sound = std::find_if(segment_files_.begin(), segment_files_.end(),
                                  [](const SegmentFile& f) { return f.header_status.ok(); });
  store_ = sound != segment_files_.end() ? sound->header.store : NewStoreUuid(random_);
  return WriteFormatFile(directory_, store_, files_);
}

// False: there is an empty catalog now, and the segments are all there is.
absl::StatusOr<bool> Recovery::OpenCatalog() {
  CAIRN_ASSIGN_OR_RETURN(const bool marked, IsMarkedForRebuild(directory_, files_));
  if (marked) {
    const absl::Status why = absl::DataLossError("it was found damaged while in use");
    if (CatalogIsNew()) {
      SayRebuild(std::string(why.message()));
    } else {
      CAIRN_RETURN_IF_ERROR(GiveUpCatalog(why));
    }
    // Now rather than when all is rebuilt: an empty catalog is rebuilt anyway, and a crash on the
    // way must not move that one aside too. The move first, durably.
    CAIRN_RETURN_IF_ERROR(files_.SyncDirectory(directory_));
    CAIRN_RETURN_IF_ERROR(UnmarkForRebuild(directory_, files_));
    CAIRN_FAULT_POINT(kRecoverUnmarked);
    return false;
  }
  const absl::Status opened = catalog_.Open(directory_);
  if (absl::IsDataLoss(opened)) {
    CAIRN_RETURN_IF_ERROR(GiveUpCatalog(opened));
    return false;
  }
  CAIRN_RETURN_IF_ERROR(opened);
  const auto damaged = [&](const std::string& why) -> absl::StatusOr<bool> {
    CAIRN_RETURN_IF_ERROR(GiveUpCatalog(absl::DataLossError(why)));
    return false;
  };
  const absl::StatusOr<std::optional<std::string>> uuid = catalog_.GetValue(kValueUuid);
  if (absl::IsDataLoss(uuid.status())) return damaged(std::string(uuid.status().message()));
  CAIRN_RETURN_IF_ERROR(uuid.status());
  if (!uuid->has_value()) {
    // New, or its making was cut short. Only with segments is that a loss.
    if (segment_files_.empty()) return true;
    SayRebuild("the catalog was missing");
    return false;
  }
  if (**uuid != UuidText(store_)) return damaged("the catalog is another store's");
  const absl::StatusOr<std::optional<std::string>> mark = catalog_.GetValue(kValueWatermark);
  if (absl::IsDataLoss(mark.status())) return damaged(std::string(mark.status().message()));
  CAIRN_RETURN_IF_ERROR(mark.status());
  if (!mark->has_value()) return damaged("the catalog has no watermark");
  const absl::StatusOr<Watermark> decoded = DecodeWatermark(**mark);
  if (!decoded.ok()) return damaged(std::string(decoded.status().message()));
  mark_ = *decoded;
  next_.segment = std::max(next_.segment, mark_.segment);
  next_.sequence = std::max(next_.sequence, mark_.sequence);
  return true;
}

// Whether none of its makers ever came to settle it: the one before was moved aside, or there was
// none.
bool Recovery::CatalogIsNew() {
  if (!catalog_.Open(directory_).ok()) return false;
  const absl::StatusOr<std::optional<std::string>> uuid = catalog_.GetValue(kValueUuid);
  return uuid.ok() && !uuid->has_value();
}

absl::Status Recovery::GiveUpCatalog(const absl::Status& why) {
  CAIRN_ASSIGN_OR_RETURN(const std::string aside, catalog_.MoveAside(directory_));
  CAIRN_FAULT_POINT(kRecoverMovedAside);
  SayRebuild(absl::StrCat(std::string(why.message()), "; moved to ", aside));
  return absl::OkStatus();
}

// Records beyond the watermark were written but not catalogued when the process ended: nobody was
// told that they are durable, but a whole one is as good as any.
absl::Status Recovery::AdoptTails() {
  Newest newest;
  for (auto& [id, known] : known_) {
    if (id < mark_.segment) continue;
    known.open = true;
    const bool first = id == mark_.segment;
    if (first) {
      const uint64_t there = known.file->size / kIoAlignment * kIoAlignment;
      known.end = std::max(kSegmentHeaderBytes, std::min(mark_.end, there));
    }
    const auto unsettled = [&](const CatalogEntry& entry) {
      return entry.location.sequence >= mark_.sequence;
    };
    CAIRN_ASSIGN_OR_RETURN(
        SegmentScan scan,
        ScanSegment(
            files_, *known.file->file,
            {.store = store_, .segment = id, .from = known.end, .check_payload = unsettled}));
    CAIRN_FAULT_POINT(kRecoverTailScanned);
    report_.truncated_tail_bytes += scan.written_end - scan.records_end;
    known.records = known.end > kSegmentHeaderBytes || !scan.records.empty();
    known.end = std::max(known.end, scan.records_end);
    for (ScannedRecord& record : scan.records) {
      next_.sequence = std::max(next_.sequence, record.entry.location.sequence + 1);
      if (!record.payload_checked) continue;  // catalogued once, and erased
      if (!record.payload_whole) {
        report_.truncated_tail_bytes += record.entry.location.bytes;
        continue;
      }
      const absl::StatusOr<std::optional<CatalogEntry>> there = catalog_.Get(record.entry.meta.key);
      // A damaged value says as little as none: the record is whole.
      if (!there.ok() && !absl::IsDataLoss(there.status())) return there.status();
      if (!there.ok() || !there->has_value()) Take(newest, std::move(record.entry));
    }
  }
  report_.adopted_entries += newest.size();
  if (newest.empty()) return absl::OkStatus();
  CAIRN_FAULT_POINT(kRecoverBeforeAdopt);
  CAIRN_RETURN_IF_ERROR(Catalogue(newest));
  CAIRN_FAULT_POINT(kRecoverAdopted);
  return absl::OkStatus();
}

absl::Status Recovery::Rebuild() {
  Newest newest;
  for (auto& [id, known] : known_) {
    CAIRN_ASSIGN_OR_RETURN(
        SegmentScan scan,
        ScanSegment(files_, *known.file->file,
                    {.store = store_, .segment = id, .check_payload = [](const CatalogEntry&) {
                       return true;
                     }}));
    CAIRN_FAULT_POINT(kRecoverRebuildScanned);
    known.end = scan.records_end;
    const bool last = id == known_.rbegin()->first;
    known.open = last;
    bool damaged = scan.damaged_runs > 0;
    if (last) {
      report_.truncated_tail_bytes += scan.written_end - scan.records_end;
    } else {
      damaged |= scan.written_end > scan.records_end;
    }
    known.records = !scan.records.empty();
    for (ScannedRecord& record : scan.records) {
      next_.sequence = std::max(next_.sequence, record.entry.location.sequence + 1);
      if (!record.payload_whole) {
        ++report_.dropped_entries;
        damaged = true;
        continue;
      }
      Take(newest, std::move(record.entry));
    }
    if (damaged && known.headed) ++report_.damaged_segments;  // others are counted below
  }
  CAIRN_RETURN_IF_ERROR(Catalogue(newest));
  CAIRN_FAULT_POINT(kRecoverRebuilt);
  return absl::OkStatus();
}

// Puts them into the catalog, durably.
absl::Status Recovery::Catalogue(Newest& newest) {
  CatalogBatch batch;
  for (auto& [key, entry] : newest) {
    batch.puts.push_back(std::move(entry));
    if (batch.puts.size() < kEntriesPerBatch) continue;
    CAIRN_RETURN_IF_ERROR(catalog_.Apply(batch, /*sync=*/false));
    batch.puts.clear();
  }
  return catalog_.Apply(batch, /*sync=*/true);
}

// A segment that was being made when the process ended has no header yet, and nothing else. Any
// other one without a header is damaged, but its records stand for themselves.
absl::Status Recovery::RemoveUnfinished() {
  bool removed = false;
  for (auto it = known_.begin(); it != known_.end();) {
    const Known& known = it->second;
    if (!known.headed && known.open && !known.records) {
      CAIRN_RETURN_IF_ERROR(files_.Unlink(known.file->file->path()));
      CAIRN_FAULT_POINT(kRecoverUnfinishedRemoved);
      removed = true;
      it = known_.erase(it);
      continue;
    }
    if (!known.headed) ++report_.damaged_segments;
    ++it;
  }
  return removed ? files_.SyncDirectory(SegmentsDirectory(directory_)) : absl::OkStatus();
}

// The one segment that is written on starts again behind its last record; what lies there of an
// unfinished put must not be taken for a record later.
absl::Status Recovery::CutTails() {
  uint64_t last_open = 0;
  for (const auto& [id, known] : known_) {
    if (known.open) last_open = id;
  }
  for (auto& [id, known] : known_) {
    if (!known.open) continue;
    known.open = id == last_open && known.headed;
    if (known.end >= known.file->size) continue;
    const uint64_t size = known.file->size;
    CAIRN_RETURN_IF_ERROR(known.file->file->Truncate(known.end));
    CAIRN_FAULT_POINT(kRecoverTailTruncated);
    known.file->size = known.end;
    // Without room to stand ready the segment is simply full.
    if (known.open && known.file->file->Allocate(size).ok()) known.file->size = size;
    CAIRN_FAULT_POINT(kRecoverTailReserved);
    CAIRN_RETURN_IF_ERROR(known.file->file->Sync());
    CAIRN_FAULT_POINT(kRecoverTailSynced);
  }
  return absl::OkStatus();
}

// From here on everything found is settled.
absl::Status Recovery::Settle() {
  Watermark mark = next_;
  for (const auto& [id, known] : known_) {
    if (known.open) {
      mark.segment = id;
      mark.end = known.end;
    }
  }
  CatalogBatch batch;
  batch.values = {{kValueUuid, UuidText(store_)}, {kValueWatermark, EncodeWatermark(mark)}};
  return catalog_.Apply(batch, /*sync=*/true);
}

RecoveredStore Recovery::Result() {
  RecoveredStore result{.store = store_, .next = next_};
  for (auto& [id, known] : known_) {
    result.segments.push_back({.id = id,
                               .file = std::move(known.file->file),
                               .size = known.file->size,
                               .append_at = known.open ? known.end : known.file->size});
  }
  report_.segments = result.segments.size();
  return result;
}

}  // namespace

std::string EncodeWatermark(const Watermark& mark) {
  const uint64_t fields[] = {mark.segment, mark.end, mark.sequence};
  return {reinterpret_cast<const char*>(fields), sizeof(fields)};
}

absl::StatusOr<Watermark> DecodeWatermark(const std::string& bytes) {
  uint64_t fields[3];
  if (bytes.size() != sizeof(fields)) {
    return absl::DataLossError("the catalog's watermark is cut short");
  }
  std::memcpy(fields, bytes.data(), sizeof(fields));
  // Segments and sequences are counted up from 1: beyond this no store gets in its life.
  constexpr uint64_t kCountMax = uint64_t{1} << 62;
  if (fields[0] > kCountMax || fields[2] > kCountMax || fields[1] % kIoAlignment != 0) {
    return absl::DataLossError("the catalog's watermark is out of bounds");
  }
  return Watermark{.segment = fields[0], .end = fields[1], .sequence = fields[2]};
}

absl::StatusOr<RecoveredStore> Recover(const std::string& directory, FileSystem& files,
                                       Catalog& catalog, Random& random, RecoveryReport& report) {
  return Recovery(directory, files, catalog, random, report).Run();
}

}  // namespace cairn::store
