// Survey: what the catalog held at Open, against the segments that are there.

#include <algorithm>
#include <vector>

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
  if (surveyed) return absl::OkStatus();
  return survey_status.ok() ? SurveyLocked(nullptr) : survey_status;
}

absl::Status DiskTier::Impl::SurveyLocked(const std::function<bool(const EntryMeta&)>& visit) {
  CAIRN_FAULT_POINT(kSurveyBegun);
  // Counted apart first: a survey that ends early leaves nothing half counted.
  SegmentSet::Survey live;
  std::vector<CatalogEntry> stale;
  bool whole = true;
  survey_status = at_open->ForEach([&](const CatalogEntry& entry) {
    if (!segments.Holds(entry.location)) {
      stale.push_back(entry);
      return true;
    }
    live[entry.location.segment] += {.bytes = entry.location.bytes, .records = 1};
    whole = !visit || visit(entry.meta);
    return whole;
  });
  if (absl::IsDataLoss(survey_status)) {
    MarkForRebuild(options.directory, files).IgnoreError();  // what is damaged is found again
    survey_status = absl::DataLossError(
        absl::StrCat("the catalog is damaged, and rebuilt when the store is opened next: ",
                     std::string(survey_status.message())));
  }
  if (!survey_status.ok() || !whole) return survey_status;
  CAIRN_FAULT_POINT(kSurveyWalked);
  segments.EndSurvey(live);
  at_open.reset();
  surveyed = true;
  CAIRN_FAULT_POINT(kSurveyEnded);
  return ForgetStale(stale);
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
  }
  return absl::OkStatus();
}

}  // namespace cairn::store
