// Put, in its steps: claims and room, the writing, the publishing.
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

// Claims end last: who waits for one finds the outcome.
struct DiskTier::Pending::State {
  State(Impl& t, absl::flat_hash_set<EntryKey> k) : tier(t), keys(std::move(k)) {
    // All keys at once, so that two puts can never wait for each other.
    std::unique_lock<std::mutex> lock(tier.claim_mutex);
    tier.claim_changed.wait(lock, [&] {
      return std::none_of(keys.begin(), keys.end(),
                          [&](const EntryKey& key) { return tier.claimed.contains(key); });
    });
    tier.claimed.insert(keys.begin(), keys.end());
  }
  ~State() {
    room.reset();
    CAIRN_FAULT_POINT(kPutDone);
    const std::lock_guard<std::mutex> lock(tier.claim_mutex);
    for (const EntryKey& key : keys) tier.claimed.erase(key);
    tier.claim_changed.notify_all();
  }

  Impl& tier;
  const absl::flat_hash_set<EntryKey> keys;
  std::vector<RecordToWrite> records;  // of those that were not there yet
  std::optional<HeldRooms> room;       // for them, until they are found
};

DiskTier::Pending::Pending(std::unique_ptr<State> state) : state_(std::move(state)) {}
DiskTier::Pending::Pending(Pending&&) noexcept = default;
DiskTier::Pending& DiskTier::Pending::operator=(Pending&&) noexcept = default;
DiskTier::Pending::~Pending() = default;

absl::Status DiskTier::Put(std::span<const DiskPut> entries) {
  CAIRN_ASSIGN_OR_RETURN(Pending put, Prepare(entries));
  CAIRN_RETURN_IF_ERROR(Write(put));
  return Publish(put);
}

absl::StatusOr<DiskTier::Pending> DiskTier::Prepare(std::span<const DiskPut> entries) {
  for (const DiskPut& entry : entries) CAIRN_RETURN_IF_ERROR(CheckPut(entry));
  absl::flat_hash_set<EntryKey> keys;
  std::vector<DiskPut> once;
  for (const DiskPut& entry : entries) {
    if (keys.insert(entry.meta->key).second) once.push_back(entry);
  }
  auto state = std::make_unique<Pending::State>(*impl_, std::move(keys));
  CAIRN_FAULT_POINT(kPutClaimed);
  CAIRN_ASSIGN_OR_RETURN(state->records, impl_->Absent(once));
  if (!state->records.empty()) {
    CAIRN_ASSIGN_OR_RETURN(HeldRooms room,
                           impl_->writer.TakeRoom(state->records, RoomPurpose::kPut));
    state->room.emplace(std::move(room));
  }
  return Pending(std::move(state));
}

absl::StatusOr<std::vector<RecordToWrite>> DiskTier::Impl::Absent(
    std::span<const DiskPut> entries) {
  std::vector<RecordToWrite> absent;
  for (const DiskPut& entry : entries) {
    if (doubts != 0) CAIRN_RETURN_IF_ERROR(CatalogFailed(SettleDoubt(entry.meta->key)));
    const absl::StatusOr<std::optional<CatalogEntry>> there = Get(entry.meta->key);
    CAIRN_RETURN_IF_ERROR(CatalogFailed(there.status()));
    if (!there->has_value()) absent.push_back({.meta = entry.meta, .payload = entry.payload});
  }
  return absent;
}

absl::Status DiskTier::Write(Pending& put) {
  Pending::State& state = *put.state_;
  if (!state.room.has_value()) return absl::OkStatus();
  return impl_->writer.Write(state.records, *state.room, RoomPurpose::kPut);
}

absl::Status DiskTier::Publish(Pending& put) {
  Pending::State& state = *put.state_;
  if (!state.room.has_value()) return absl::OkStatus();
  CAIRN_RETURN_IF_ERROR(impl_->writer.Sync(*state.room));
  uint64_t bytes = 0;
  for (const RecordRoom& room : state.room->rooms()) bytes += room.location.bytes;
  CAIRN_RETURN_IF_ERROR(
      CatalogFailed(impl_->writer.Catalogue(state.records, *std::move(state.room))));
  state.room.reset();
  impl_->put_bytes += bytes;
  return absl::OkStatus();
}

}  // namespace cairn::store
