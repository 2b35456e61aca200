// Put: claims, groups, and the order in which they become visible.
#include <algorithm>

#include "store/base/fault_point.h"
#include "store/tier/disk_tier_impl.h"

namespace cairn::store {
namespace {

absl::Status CheckPut(const DiskPut& put) {
  if (put.meta == nullptr) return absl::InvalidArgumentError("disk tier: an entry has no meta");
  CAIRN_RETURN_IF_ERROR(ValidateMeta(*put.meta));
  const uint64_t bytes = put.meta->payload_bytes();
  if (put.payload.size() != RoundUpToIo(bytes) || !AlignedSpan(put.payload)) {
    return absl::InvalidArgumentError(
        absl::StrCat("disk tier: the payload of ", bytes, " bytes must be given as ",
                     RoundUpToIo(bytes), " bytes at an address that is a multiple of ",
                     kIoAlignment, "; ", put.payload.size(), " were given"));
  }
  return absl::OkStatus();
}

// A put's DATA_LOSS says that what is put is damaged, and its owner then throws it away. So a
// catalog that takes no more because it is damaged must not say so.
absl::Status CatalogFailed(const absl::Status& status) {
  if (!absl::IsDataLoss(status)) return status;
  return absl::UnavailableError(absl::StrCat(
      "the catalog is damaged, and rebuilt at the next start: ", std::string(status.message())));
}

}  // namespace

absl::Status DiskTier::Put(std::span<const DiskPut> entries) {
  for (const DiskPut& entry : entries) CAIRN_RETURN_IF_ERROR(CheckPut(entry));
  absl::flat_hash_set<EntryKey> keys;
  std::vector<DiskPut> once;
  for (const DiskPut& entry : entries) {
    if (keys.insert(entry.meta->key).second) once.push_back(entry);
  }
  {
    // All keys at once, so that two puts can never wait for each other.
    std::unique_lock<std::mutex> lock(impl_->claim_mutex);
    impl_->claim_changed.wait(lock, [&] {
      return std::none_of(keys.begin(), keys.end(),
                          [&](const EntryKey& key) { return impl_->claimed.contains(key); });
    });
    impl_->claimed.insert(keys.begin(), keys.end());
  }
  CAIRN_FAULT_POINT(kPutClaimed);
  const absl::Status status = impl_->PutClaimed(once);
  CAIRN_FAULT_POINT(kPutDone);
  const std::lock_guard<std::mutex> lock(impl_->claim_mutex);
  for (const EntryKey& key : keys) impl_->claimed.erase(key);
  impl_->claim_changed.notify_all();
  return status;
}

absl::Status DiskTier::Impl::PutClaimed(std::span<const DiskPut> entries) {
  std::vector<RecordToWrite> records;
  for (const DiskPut& entry : entries) {
    if (doubts != 0) CAIRN_RETURN_IF_ERROR(CatalogFailed(SettleDoubt(entry.meta->key)));
    const absl::StatusOr<std::optional<CatalogEntry>> there = Get(entry.meta->key);
    CAIRN_RETURN_IF_ERROR(CatalogFailed(there.status()));
    if (!there->has_value()) records.push_back({.meta = entry.meta, .payload = entry.payload});
  }
  return records.empty() ? absl::OkStatus() : PutGroups(records);
}

// A group is written while the one before it is made durable and found. Groups are written and
// published in order: what is there after an error or a crash is a leading part of the batch.
absl::Status DiskTier::Impl::PutGroups(std::span<const RecordToWrite> records) {
  std::future<absl::Status> before;
  for (size_t begin = 0, end = 0; begin < records.size(); begin = end) {
    for (uint64_t bytes = 0; end < records.size() && bytes < options.group_bytes; ++end) {
      bytes += records[end].payload.size();
    }
    const std::span<const RecordToWrite> group = records.subspan(begin, end - begin);
    absl::StatusOr<std::vector<RecordRoom>> rooms = writer.Write(group, RoomPurpose::kPut);
    if (const absl::Status status = before.valid() ? before.get() : absl::OkStatus();
        !status.ok()) {
      if (rooms.ok()) segments.Finish(*rooms, RoomOutcome::kUnused);
      return status;
    }
    CAIRN_RETURN_IF_ERROR(rooms.status());
    // The last one has nothing to run beside; nor has any where no thread is to be had.
    const auto beside = std::launch::async | std::launch::deferred;
    const bool last = end == records.size();
    before =
        std::async(last ? std::launch::deferred : beside,
                   [this, group, written = *std::move(rooms)] { return Publish(group, written); });
  }
  return before.get();
}

absl::Status DiskTier::Impl::Publish(std::span<const RecordToWrite> records,
                                     std::span<const RecordRoom> rooms) {
  CAIRN_RETURN_IF_ERROR(writer.Sync(rooms));
  CAIRN_RETURN_IF_ERROR(CatalogFailed(writer.Catalogue(records, rooms)));
  for (const RecordRoom& room : rooms) put_bytes += room.location.bytes;
  return absl::OkStatus();
}

}  // namespace cairn::store
