// Put: written, then made durable and found.

#include <algorithm>
#include <vector>

#include "store/tier/disk_tier_impl.h"

namespace cairn::store {
namespace {

absl::Status CheckPut(const DiskPut& put) {
  if (put.meta == nullptr) return absl::InvalidArgumentError("disk tier: an entry has no meta");
  CAIRN_RETURN_IF_ERROR(ValidateMeta(*put.meta));
  const uint64_t bytes = put.meta->payload_bytes();
  if (put.payload.size() != RoundUpToIo(bytes) || !IsAligned(put.payload)) {
    return absl::InvalidArgumentError(
        absl::StrCat("disk tier: the payload of ", bytes, " bytes must be given as ",
                     RoundUpToIo(bytes), " bytes at an address that is a multiple of ",
                     kIoAlignment, "; ", put.payload.size(), " were given"));
  }
  return absl::OkStatus();
}

}  // namespace

// What is claimed, and in flight, for as long as it lives.
struct DiskTier::StagedPut::Written {
  explicit Written(Impl& t) : tier(t) {}
  Written(const Written&) = delete;  // gives back once
  ~Written() {
    tier.segments.Finish(rooms, RoomOutcome::kUnused);
    tier.Unclaim(keys);
  }

  Impl& tier;
  std::vector<EntryKey> keys;   // claimed, each once
  std::vector<EntryKey> there;  // of these: found already
  // The others.
  std::vector<RecordToWrite> records;
  std::vector<RecordRoom> rooms;
};

DiskTier::StagedPut::StagedPut(std::unique_ptr<Written> written) : written_(std::move(written)) {}
DiskTier::StagedPut::StagedPut(StagedPut&&) noexcept = default;
DiskTier::StagedPut& DiskTier::StagedPut::operator=(StagedPut&&) noexcept = default;
DiskTier::StagedPut::~StagedPut() = default;

void DiskTier::Impl::Claim(std::span<const EntryKey> keys) {
  // All at once, so that two puts can never wait for each other.
  std::unique_lock<std::mutex> held(claim_mutex);
  claim_changed.wait(held, [&] {
    return std::none_of(keys.begin(), keys.end(),
                        [&](const EntryKey& key) { return claimed.contains(key); });
  });
  claimed.insert(keys.begin(), keys.end());
}

void DiskTier::Impl::Unclaim(std::span<const EntryKey> keys) {
  const std::lock_guard<std::mutex> held(claim_mutex);
  for (const EntryKey& key : keys) claimed.erase(key);
  claim_changed.notify_all();
}

absl::StatusOr<DiskTier::StagedPut> DiskTier::Stage(std::span<const DiskPut> entries) {
  for (const DiskPut& entry : entries) CAIRN_RETURN_IF_ERROR(CheckPut(entry));
  absl::flat_hash_set<EntryKey> keys;
  std::vector<DiskPut> once;
  for (const DiskPut& entry : entries) {
    if (keys.insert(entry.meta->key).second) once.push_back(entry);
  }
  std::vector<EntryKey> claim(keys.begin(), keys.end());
  impl_->Claim(claim);
  auto staged = std::make_unique<StagedPut::Written>(*impl_);
  staged->keys = std::move(claim);
  for (const DiskPut& entry : once) {
    CAIRN_ASSIGN_OR_RETURN(const std::optional<CatalogEntry> there, impl_->Get(entry.meta->key));
    if (there.has_value()) {
      staged->there.push_back(entry.meta->key);
    } else {
      staged->records.push_back({.meta = entry.meta, .payload = entry.payload});
    }
  }
  if (!staged->records.empty()) {
    CAIRN_ASSIGN_OR_RETURN(staged->rooms, impl_->writer.Write(staged->records, RoomPurpose::kPut));
  }
  return StagedPut(std::move(staged));
}

absl::Status DiskTier::Publish(std::span<StagedPut> puts) {
  std::vector<std::unique_ptr<StagedPut::Written>> spent;  // claimed until the outcome is there
  std::vector<RecordToWrite> records;
  std::vector<RecordRoom> rooms;
  absl::Status status;
  for (StagedPut& put : puts) {
    const auto& written = spent.emplace_back(std::move(put.written_));
    for (const EntryKey& key : written->there) {
      const absl::StatusOr<std::optional<CatalogEntry>> still = impl_->Get(key);
      status.Update(still.status());
      if (still.ok() && !still->has_value()) {
        status.Update(absl::AbortedError(
            absl::StrCat("disk tier: entry ", key.digest.ToHex(), " was erased while it was put")));
      }
    }
    records.insert(records.end(), written->records.begin(), written->records.end());
    rooms.insert(rooms.end(), written->rooms.begin(), written->rooms.end());
  }
  CAIRN_RETURN_IF_ERROR(status);
  if (records.empty()) return absl::OkStatus();
  for (const auto& written : spent) written->rooms.clear();  // whoever has them finishes them
  CAIRN_RETURN_IF_ERROR(impl_->writer.Sync(rooms));
  CAIRN_RETURN_IF_ERROR(impl_->writer.Catalogue(records, rooms));
  for (const RecordRoom& room : rooms) impl_->put_bytes += room.location.bytes;
  return absl::OkStatus();
}

absl::Status DiskTier::Put(std::span<const DiskPut> entries) {
  CAIRN_ASSIGN_OR_RETURN(StagedPut staged, Stage(entries));
  return Publish({&staged, 1});
}

}  // namespace cairn::store
