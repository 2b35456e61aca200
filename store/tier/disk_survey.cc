// Survey: what the catalog held at Open, against the segments that are there.

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "store/base/fault_point.h"
#include "store/tier/disk_tier_impl.h"

namespace cairn::store {
namespace {

constexpr size_t kDroppedAtOnce = 1000;

}  // namespace

absl::Status DiskTier::Survey(const std::function<bool(const EntryMeta&)>& visit) {
  const std::lock_guard<std::mutex> lock(impl_->survey_mutex);
  if (!impl_->surveyed) return impl_->SurveyLocked(visit);
  if (!visit) return impl_->survey_status;
  return ForEach(visit);
}

absl::Status DiskTier::Impl::EnsureSurveyed() {
  if (surveyed) return absl::OkStatus();
  const std::lock_guard<std::mutex> held(survey_mutex);
  const absl::Status status = surveyed ? absl::OkStatus() : SurveyLocked(nullptr);
  return surveyed ? absl::OkStatus() : status;
}

absl::Status DiskTier::Impl::SurveyLocked(const Visitor& visit) {
  CAIRN_FAULT_POINT(kSurveyBegun);
  SurveyWork work;
  absl::Status walked = WalkCatalog(visit, work);
  if (absl::IsDataLoss(walked)) {
    MarkForRebuild(options.directory, files).IgnoreError();  // what is damaged is found again
    walked = WalkSegments(visit, work);
  }
  if (!walked.ok() || work.stopped) return walked;
  CAIRN_FAULT_POINT(kSurveyWalked);
  segments.EndSurvey(work.live, work.unknown);
  at_open.reset();
  if (!work.unknown.empty()) {
    survey_status = absl::DataLossError(absl::StrCat(
        "the catalog is damaged, and so are records in ", work.unknown.size(),
        " segments, which stay until the catalog is rebuilt when the store is opened next"));
  }
  surveyed = true;
  CAIRN_FAULT_POINT(kSurveyEnded);
  CAIRN_RETURN_IF_ERROR(ForgetStale(work.stale));
  return survey_status;
}

absl::Status DiskTier::Impl::WalkCatalog(const Visitor& visit, SurveyWork& work) {
  return at_open->ForEach([&](const CatalogEntry& entry) {
    if (!segments.Holds(entry.location)) {
      work.stale.push_back(entry);
      return true;
    }
    work.live[entry.location.segment] += {.bytes = entry.location.bytes, .records = 1};
    work.stopped = visit && !visit(entry.meta);
    return !work.stopped;
  });
}

// Where the catalog cannot be walked: its word on each record that describes itself.
absl::Status DiskTier::Impl::WalkSegments(const Visitor& visit, SurveyWork& work) {
  work.live.clear();
  absl::flat_hash_map<EntryKey, CatalogEntry> lost;  // the newest record of each
  for (const SegmentSet::Unsurveyed& at_start : segments.NotSurveyed()) {
    const Segment& segment = *at_start.segment;
    CAIRN_ASSIGN_OR_RETURN(const SegmentScan scan, ScanHeaders(segment, at_start.end));
    uint64_t end = kSegmentHeaderBytes;  // if records follow each other without a gap
    for (const ScannedRecord& record : scan.records) {
      const RecordLocation& at = record.entry.location;
      end += at.bytes;
      const auto named = at_open->Get(record.entry.meta.key);
      if (absl::IsDataLoss(named.status())) {
        CatalogEntry& newest = lost[record.entry.meta.key];
        if (newest.location.sequence < at.sequence) newest = record.entry;
        continue;
      }
      CAIRN_RETURN_IF_ERROR(named.status());
      if (!named->has_value() || (*named)->location != at) continue;
      work.live[segment.id()] += {.bytes = at.bytes, .records = 1};
      work.stopped = visit && !visit((*named)->meta);
      if (work.stopped) return absl::OkStatus();
    }
    if (end != at_start.end) work.unknown.insert(segment.id());
  }
  for (const auto& [key, entry] : lost) {
    if (work.stopped) break;
    CAIRN_ASSIGN_OR_RETURN(const bool again, CatalogueAgain(entry));
    if (again) work.stopped = visit && !visit(entry.meta);
  }
  return absl::OkStatus();
}

// False: it was forgotten, or put again, meanwhile.
absl::StatusOr<bool> DiskTier::Impl::CatalogueAgain(const CatalogEntry& entry) {
  const std::lock_guard<std::mutex> held(change_mutex);
  if (!absl::IsDataLoss(catalog->Get(entry.meta.key).status())) return false;
  CatalogBatch batch;
  batch.puts = {entry};
  CAIRN_RETURN_IF_ERROR(catalog->Apply(batch, /*sync=*/false));
  // From now on, whatever becomes of this survey.
  const RecordRoom place{.segment = segments.Find(entry.location.segment),
                         .location = entry.location};
  segments.AddLive({&place, 1});
  ++mended_entries;
  return true;
}

// Nothing is lost that was not lost before, so what cannot be erased now may stay.
absl::Status DiskTier::Impl::ForgetStale(std::span<const CatalogEntry> entries) {
  for (size_t first = 0; first < entries.size(); first += kDroppedAtOnce) {
    const std::lock_guard<std::mutex> held(change_mutex);
    CatalogBatch batch;
    for (const CatalogEntry& entry :
         entries.subspan(first, std::min(kDroppedAtOnce, entries.size() - first))) {
      const absl::StatusOr<std::optional<CatalogEntry>> now = catalog->Get(entry.meta.key);
      // It may have been put again meanwhile.
      if (!now.ok() || !now->has_value() || (*now)->location != entry.location) continue;
      batch.erases.push_back(entry.meta.key);
    }
    CAIRN_RETURN_IF_ERROR(EraseBatch(batch, {}));
    dropped_entries += batch.erases.size();
    for (const EntryKey& key : batch.erases) {
      if (withdrawn) withdrawn(key, absl::NotFoundError("its segment is not there any more"));
    }
  }
  return absl::OkStatus();
}

}  // namespace cairn::store
