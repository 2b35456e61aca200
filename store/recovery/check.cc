#include "store/recovery/check.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "store/recovery/recovery.h"
#include "store/recovery/store_files.h"
#include "store/segment/segment_scanner.h"

namespace cairn::store {
namespace {

// Places of whole records: segment, offset.
using Places = std::set<std::pair<uint64_t, uint64_t>>;

class Check {
 public:
  Check(const std::string& directory, FileSystem& files, Catalog& catalog)
      : directory_(directory), files_(files), catalog_(catalog) {}

  absl::StatusOr<CheckReport> Run() {
    CAIRN_ASSIGN_OR_RETURN(const std::optional<StoreUuid> written,
                           ReadFormatFile(directory_, files_));
    CAIRN_ASSIGN_OR_RETURN(std::vector<SegmentFile> segments,
                           OpenSegmentFiles(directory_, files_, OpenMode::kReadOnly));
    const auto sound = std::find_if(segments.begin(), segments.end(),
                                    [](const SegmentFile& f) { return f.header_status.ok(); });
    if (written.has_value()) {
      store_ = *written;
    } else if (sound != segments.end()) {
      store_ = sound->header.store;
    }
    ReadMark();
    report_.segments = segments.size();
    for (SegmentFile& segment : segments) CAIRN_RETURN_IF_ERROR(CheckSegment(segment));
    CAIRN_RETURN_IF_ERROR(CheckCatalog(segments.empty()));
    // Without a catalog nobody knows which of the records were alive.
    if (report_.catalog_damaged()) damaged_.merge(suspect_);
    for (const auto& [id, why] : damaged_) {
      report_.damaged_segments.push_back(
          {absl::StrCat(SegmentsDirectory(directory_), "/", SegmentSet::FileName(id)), why});
    }
    return std::move(report_);
  }

 private:
  // Opens the catalog; the watermark tells where a segment may be unfinished, which is no damage.
  void ReadMark() {
    opened_ = catalog_.OpenReadOnly(directory_);
    if (!opened_.ok()) return;
    const absl::StatusOr<std::optional<std::string>> bytes = catalog_.GetValue(kValueWatermark);
    if (!bytes.ok() || !bytes->has_value()) return;
    if (const absl::StatusOr<Watermark> mark = DecodeWatermark(**bytes); mark.ok()) mark_ = *mark;
  }

  absl::Status CheckSegment(SegmentFile& segment) {
    CAIRN_ASSIGN_OR_RETURN(
        const SegmentScan scan,
        ScanSegment(files_, *segment.file,
                    {.store = store_, .segment = segment.id, .check_payload = [](const auto&) {
                       return true;
                     }}));
    const bool unfinished = segment.id >= mark_.segment && scan.records.empty();
    if (!segment.header_status.ok() && !unfinished) {
      damaged_.emplace(segment.id, std::string(segment.header_status.message()));
    } else if (segment.header_status.ok() && segment.header.store != store_) {
      damaged_.emplace(segment.id, "another store's segment");
    }
    if (scan.damaged_runs > 0) {
      suspect_.emplace(segment.id,
                       absl::StrCat(scan.damaged_runs, " stretches that are no records"));
    }
    for (const ScannedRecord& record : scan.records) {
      const RecordLocation& at = record.entry.location;
      if (record.payload_whole) {
        ++report_.records;
        report_.payload_bytes += record.entry.meta.payload_bytes();
        whole_.emplace(at.segment, at.offset);
      } else {
        suspect_.emplace(
            segment.id, absl::StrCat("the record at ", at.offset, " does not match its checksums"));
      }
    }
    return absl::OkStatus();
  }

  absl::Status CheckCatalog(bool no_segments) {
    if (absl::IsNotFound(opened_)) {
      if (!no_segments) report_.catalog_trouble = std::string(opened_.message());
      return absl::OkStatus();
    }
    if (absl::IsDataLoss(opened_)) {
      report_.catalog_trouble = std::string(opened_.message());
      return absl::OkStatus();
    }
    CAIRN_RETURN_IF_ERROR(opened_);
    const absl::StatusOr<std::optional<std::string>> uuid = catalog_.GetValue(kValueUuid);
    absl::Status read = uuid.status();
    if (read.ok() && !uuid->has_value() && !no_segments) {
      report_.catalog_trouble = "the catalog is empty";
      return absl::OkStatus();
    }
    if (read.ok() && uuid->has_value() && **uuid != UuidText(store_)) {
      report_.catalog_trouble = "the catalog is another store's";
      return absl::OkStatus();
    }
    if (read.ok()) {
      read = catalog_.ForEach([&](const CatalogEntry& entry) {
        const RecordLocation& at = entry.location;
        if (whole_.contains({at.segment, at.offset})) {
          ++report_.entries;
        } else {
          ++report_.damaged_entries;
          damaged_.emplace(at.segment, absl::StrCat("the entry at ", at.offset, " is not whole"));
        }
        return true;
      });
    }
    if (!absl::IsDataLoss(read)) return read;
    report_.catalog_trouble = std::string(read.message());
    return absl::OkStatus();
  }

  const std::string directory_;
  FileSystem& files_;
  Catalog& catalog_;
  CheckReport report_;
  StoreUuid store_{};
  absl::Status opened_;
  Watermark mark_{.segment = UINT64_MAX, .sequence = UINT64_MAX};
  Places whole_;
  // Segment -> the first thing that is wrong with it. What is suspect may be the remains of an
  // unfinished or erased put, and is damage only if an entry is named there.
  std::map<uint64_t, std::string> damaged_;
  std::map<uint64_t, std::string> suspect_;
};

}  // namespace

absl::StatusOr<CheckReport> CheckDirectory(const std::string& directory, FileSystem& files,
                                           Catalog& catalog) {
  CAIRN_ASSIGN_OR_RETURN(const bool exists, files.Exists(directory + "/FORMAT"));
  CAIRN_ASSIGN_OR_RETURN(const bool segments, files.Exists(SegmentsDirectory(directory)));
  if (!exists && !segments) {
    return absl::NotFoundError(absl::StrCat(directory, " holds no cairn store"));
  }
  CAIRN_ASSIGN_OR_RETURN(const std::unique_ptr<FileLock> lock, files.Lock(directory + "/LOCK"));
  if (!segments) return CheckReport{};
  return Check(directory, files, catalog).Run();
}

}  // namespace cairn::store
