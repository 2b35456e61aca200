// Put: room taken, written and durable, found.

#include <algorithm>
#include <vector>

#include "store/base/fault_point.h"
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

// What is claimed, and the rooms in flight, for as long as it lives.
struct DiskTier::StagedPut::Claims {
  explicit Claims(Impl& t) : tier(t) {}
  Claims(const Claims&) = delete;  // gives back once
  ~Claims() {
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

DiskTier::StagedPut::StagedPut(std::unique_ptr<Claims> claims) : claims_(std::move(claims)) {}
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
  auto claims = std::make_unique<StagedPut::Claims>(*impl_);
  claims->keys = std::move(claim);
  CAIRN_FAULT_POINT(kPutClaimed);
  for (const DiskPut& entry : once) {
    CAIRN_ASSIGN_OR_RETURN(const std::optional<CatalogEntry> there, impl_->Get(entry.meta->key));
    if (there.has_value()) {
      claims->there.push_back(entry.meta->key);
    } else {
      claims->records.push_back({.meta = entry.meta, .payload = entry.payload});
    }
  }
  if (!claims->records.empty()) {
    CAIRN_ASSIGN_OR_RETURN(claims->rooms,
                           impl_->writer.TakeRoom(claims->records, RoomPurpose::kPut));
  }
  return StagedPut(std::move(claims));
}

absl::Status DiskTier::Write(StagedPut& put) {
  StagedPut::Claims& claims = *put.claims_;
  if (claims.records.empty()) return absl::OkStatus();
  const absl::Status written = impl_->writer.Write(claims.records, claims.rooms, RoomPurpose::kPut);
  if (!written.ok()) claims.rooms.clear();  // given back
  return written;
}

absl::Status DiskTier::Publish(StagedPut put) {
  StagedPut::Claims& claims = *put.claims_;
  for (const EntryKey& key : claims.there) {
    CAIRN_ASSIGN_OR_RETURN(const std::optional<CatalogEntry> still, impl_->Get(key));
    if (!still.has_value()) {
      return absl::AbortedError(
          absl::StrCat("disk tier: entry ", key.digest.ToHex(), " was erased while it was put"));
    }
  }
  if (claims.records.empty()) return absl::OkStatus();
  const std::vector<RecordRoom> rooms = std::move(claims.rooms);  // Catalogue finishes them
  claims.rooms.clear();
  CAIRN_RETURN_IF_ERROR(impl_->writer.Catalogue(claims.records, rooms));
  for (const RecordRoom& room : rooms) impl_->put_bytes += room.location.bytes;
  CAIRN_FAULT_POINT(kPutDone);
  return absl::OkStatus();
}

absl::Status DiskTier::Put(std::span<const DiskPut> entries) {
  absl::Status status = absl::AbortedError("");
  while (absl::IsAborted(status)) {
    CAIRN_ASSIGN_OR_RETURN(StagedPut staged, Stage(entries));
    CAIRN_RETURN_IF_ERROR(Write(staged));
    status = Publish(std::move(staged));
  }
  return status;
}

}  // namespace cairn::store
