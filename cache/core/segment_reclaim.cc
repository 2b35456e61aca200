// Which segment of the disk goes next, and what of it. The tier says what lives in a segment, by
// its record headers, once; the index remembers it, so weighing a segment is a matter of memory.
#include <algorithm>
#include <utility>

#include "cache/core/residency.h"

namespace cairn::cache {
namespace {

// Weighed for each segment that goes: all of a small store; of a large one those that promised most
// when they were last weighed, and those for which that is longest ago. A segment of 256 MiB costs
// half a millisecond.
constexpr size_t kBestWeighed = 16;
constexpr size_t kOldestWeighed = 16;
// Segments whose headers are read for each that goes. One is written for each.
constexpr size_t kScans = 4;

// Any number will do that two segments hardly share: two that did would be weighed wrongly.
uint32_t GroupOf(const store::DiskSegment& segment) {
  return static_cast<uint32_t>(segment.id % UINT32_MAX) + 1;
}

}  // namespace

std::vector<store::DiskSegment> Residency::ChooseToWeigh(std::vector<store::DiskSegment> segments) {
  const auto first = [&](size_t from, size_t count, const auto& before) {
    const auto begin =
        segments.begin() + static_cast<std::ptrdiff_t>(std::min(from, segments.size()));
    const size_t most = static_cast<size_t>(segments.end() - begin);
    std::partial_sort(begin, begin + static_cast<std::ptrdiff_t>(std::min(count, most)),
                      segments.end(), before);
  };
  // A segment that was never weighed counts as the longest ago.
  first(0, kOldestWeighed, [&](const auto& a, const auto& b) {
    return std::pair(rosters_[a.id].weighed, a.id) < std::pair(rosters_[b.id].weighed, b.id);
  });
  first(kOldestWeighed, kBestWeighed, [&](const auto& a, const auto& b) {
    return std::pair(rosters_[a.id].lost_per_byte, a.id) <
           std::pair(rosters_[b.id].lost_per_byte, b.id);
  });
  segments.resize(std::min(segments.size(), kOldestWeighed + kBestWeighed));
  return segments;
}

absl::Status Residency::Scan(const store::DiskSegment& segment) {
  const absl::StatusOr<std::vector<EntryKey>> keys = disk->LiveIn(segment.id);
  if (absl::IsNotFound(keys.status())) return absl::OkStatus();  // it went just now
  CAIRN_RETURN_IF_ERROR(keys.status());
  Roster& roster = rosters_[segment.id];
  roster.entries.clear();
  MutexLock lock(&mutex);
  for (const EntryKey& key : *keys) {
    // One that the index does not have (yet) is moved like one that is held.
    const EntryRef ref{index.Find(key.digest), key.kind};
    if (ref.block == nullptr || !ref->in[static_cast<size_t>(Place::kDisk)]) continue;
    roster.entries.push_back(index.SetSegment(ref, GroupOf(segment)));
  }
  roster.whole = roster.entries.size() == segment.live_records;
  return absl::OkStatus();
}

std::optional<Departure> Residency::Plan(const store::DiskSegment& segment) {
  std::vector<EntryRef> here;
  for (const uint32_t number : rosters_[segment.id].entries) {
    const EntryRef ref = index.FindInSegment(number, GroupOf(segment));
    if (ref.block != nullptr) here.push_back(ref);
  }
  return PlanDeparture(index, segment, here);
}

absl::StatusOr<bool> Residency::ReclaimWorstSegment() {
  AwaitLoaded();
  CAIRN_ASSIGN_OR_RETURN(std::vector<store::DiskSegment> segments, disk->Segments());
  std::map<uint64_t, Roster> there;
  for (const store::DiskSegment& segment : segments) {
    there.emplace(segment.id, std::move(rosters_[segment.id]));
  }
  rosters_ = std::move(there);
  ++weighings_;
  std::optional<store::DiskSegment> worst;
  double least = 0;
  size_t scans = 0;
  for (const store::DiskSegment& segment : ChooseToWeigh(std::move(segments))) {
    Roster& roster = rosters_[segment.id];
    if (!roster.whole) {
      if (scans++ >= kScans) continue;
      CAIRN_RETURN_IF_ERROR(Scan(segment));
    }
    MutexLock lock(&mutex);
    const std::optional<Departure> departure = Plan(segment);
    roster.weighed = weighings_;
    roster.lost_per_byte = departure.has_value() ? departure->lost_per_byte : kNeverWeighed;
    if (departure.has_value() && (!worst.has_value() || departure->lost_per_byte < least)) {
      worst = segment;
      least = departure->lost_per_byte;
    }
  }
  if (!worst.has_value()) return false;
  return EvictSegment(*worst);
}

absl::StatusOr<bool> Residency::EvictSegment(const store::DiskSegment& segment) {
  std::vector<EntryKey> keys;
  {
    MutexLock lock(&mutex);
    // Others had the lock since it was weighed.
    const std::optional<Departure> departure = Plan(segment);
    if (!departure.has_value()) return false;
    for (const EntryRef ref : WithAllBelow(index, departure->leaving)) {
      keys.push_back(EvictOne(ref));
    }
    for (const EntryKey& key : keys) {
      if (Block* const block = index.Find(key.digest); block != nullptr) index.Prune(block);
    }
  }
  CAIRN_RETURN_IF_ERROR(EraseEvicted(keys));
  const absl::Status reclaimed = disk->ReclaimSegment(segment.id);
  // More lives there than was known, or there is no room to move it to: what was erased makes it
  // cheaper the next time.
  if (absl::IsFailedPrecondition(reclaimed) || absl::IsResourceExhausted(reclaimed)) {
    return !keys.empty();
  }
  CAIRN_RETURN_IF_ERROR(reclaimed);
  return true;
}

}  // namespace cairn::cache
