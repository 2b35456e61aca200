#include "store/tier/arena_entries.h"

#include <bit>
#include <mutex>

#include "absl/container/flat_hash_map.h"
#include "store/base/checksum.h"
#include "store/tier/arena_allocator.h"

namespace cairn::store {
namespace {

static_assert(std::endian::native == std::endian::little, "the table is little-endian");

}  // namespace

uint64_t TableChecksum(std::span<const EntryPart> parts) {
  std::vector<uint64_t> table;
  table.reserve(parts.size());
  for (const EntryPart& part : parts) table.push_back(part.xxh3);
  return Checksum(
      {reinterpret_cast<const uint8_t*>(table.data()), table.size() * sizeof(uint64_t)});
}

struct ArenaEntries::Impl {
  using Entries = absl::flat_hash_map<EntryKey, std::unique_ptr<ArenaSlot>>;

  Impl(std::string n, uint64_t b, ArenaEntries::Freed f)
      : name(std::move(n)), arena_bytes(b), freed(std::move(f)), allocator(b) {}

  // REQUIRES: mutex, as do all of these.
  void Free(uint64_t offset, uint64_t bytes) {
    if (freed != nullptr) return freed(offset, bytes);
    allocator.Return(offset, bytes);
  }
  void Pin(ArenaSlot& slot) {
    if (slot.pins++ == 0) pinned_bytes += slot.bytes;
  }
  void Unpin(ArenaSlot* slot) {
    if (--slot->pins > 0) return;
    pinned_bytes -= slot->bytes;
    if (!slot->erased) return;
    Free(slot->offset, slot->bytes);
    delete slot;
  }
  bool Erase(Entries::iterator at) {
    if (at == entries.end()) return false;
    std::unique_ptr<ArenaSlot> slot = std::move(at->second);
    entries.erase(at);
    if (slot->pins == 0) {
      Free(slot->offset, slot->bytes);
      return true;
    }
    slot->erased = true;
    slot.release();  // the last pin deletes it
    return true;
  }

  const std::string name;
  const uint64_t arena_bytes;
  const ArenaEntries::Freed freed;
  mutable std::mutex mutex;
  ArenaAllocator allocator;   // guarded by mutex
  Entries entries;            // guarded by mutex
  uint64_t pinned_bytes = 0;  // guarded by mutex
};

ArenaRoom& ArenaRoom::operator=(ArenaRoom&& other) noexcept {
  std::swap(entries_, other.entries_);
  std::swap(offset_, other.offset_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

ArenaRoom::~ArenaRoom() {
  if (entries_ == nullptr) return;
  const std::lock_guard<std::mutex> lock(entries_->impl_->mutex);
  entries_->impl_->Free(offset_, bytes_);
}

ArenaPin& ArenaPin::operator=(ArenaPin&& other) noexcept {
  std::swap(entries_, other.entries_);
  std::swap(slot_, other.slot_);
  return *this;
}

ArenaPin::~ArenaPin() {
  if (slot_ == nullptr) return;
  const std::lock_guard<std::mutex> lock(entries_->impl_->mutex);
  entries_->impl_->Unpin(slot_);
}

ArenaPins& ArenaPins::operator=(ArenaPins&& other) noexcept {
  std::swap(entries_, other.entries_);
  slots_.swap(other.slots_);
  return *this;
}

ArenaPins::~ArenaPins() {
  if (slots_.empty()) return;
  const std::lock_guard<std::mutex> lock(entries_->impl_->mutex);
  for (ArenaSlot* slot : slots_) entries_->impl_->Unpin(slot);
}

void ArenaPins::Add(ArenaPin pin) {
  slots_.push_back(pin.slot_);
  entries_ = pin.entries_;
  pin.slot_ = nullptr;
}

ArenaEntries::ArenaEntries(std::string name, uint64_t bytes, Freed freed)
    : impl_(std::make_unique<Impl>(std::move(name), bytes, std::move(freed))) {}
ArenaEntries::~ArenaEntries() = default;

absl::StatusOr<ArenaRoom> ArenaEntries::Reserve(uint64_t payload_bytes, size_t parts) {
  if (payload_bytes == 0 || payload_bytes > kEntryBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat(impl_->name, ": entry of ", payload_bytes,
                                                   " bytes, must be 1 to ", kEntryBytesMax));
  }
  if (parts == 0 || parts > kPartsPerEntryMax) {
    return absl::InvalidArgumentError(absl::StrCat(impl_->name, ": entry of ", parts,
                                                   " parts, must be 1 to ", kPartsPerEntryMax));
  }
  const uint64_t taken = ArenaRoomBytes(payload_bytes, parts);
  const std::lock_guard<std::mutex> lock(impl_->mutex);
  const std::optional<uint64_t> offset = impl_->allocator.Take(taken);
  if (!offset.has_value()) {
    return absl::ResourceExhaustedError(absl::StrCat(
        impl_->name, ": no free extent of ", taken, " bytes; ", impl_->allocator.free_bytes(),
        " of ", impl_->arena_bytes, " are free, at most ", impl_->allocator.largest_free(),
        " together; evict and retry"));
  }
  ArenaRoom room;
  room.entries_ = this;
  room.offset_ = *offset;
  room.bytes_ = taken;
  return room;
}

void ArenaEntries::Return(std::span<const std::pair<uint64_t, uint64_t>> extents) {
  const std::lock_guard<std::mutex> lock(impl_->mutex);
  for (const auto& [offset, bytes] : extents) impl_->allocator.Return(offset, bytes);
}

absl::StatusOr<std::unique_ptr<ArenaSlot>> ArenaEntries::Fit(EntryMeta meta,
                                                             const ArenaRoom& room) const {
  if (room.entries_ != this) {
    return absl::InvalidArgumentError(
        absl::StrCat(impl_->name, ": the room is empty or another tier's"));
  }
  const uint64_t payload = meta.payload_bytes();
  if (meta.parts.empty() || meta.parts.size() > kPartsPerEntryMax || payload == 0 ||
      ArenaRoomBytes(payload, meta.parts.size()) > room.bytes()) {
    return absl::InvalidArgumentError(
        absl::StrCat(impl_->name, ": entry of ", meta.parts.size(), " parts and ", payload,
                     " bytes does not fit its room of ", room.bytes()));
  }
  auto slot = std::make_unique<ArenaSlot>();
  slot->offset = room.offset();
  slot->bytes = room.bytes();
  slot->payload_bytes = payload;
  slot->part_count = meta.parts.size();
  slot->table_xxh3 = TableChecksum(meta.parts);
  slot->meta = std::move(meta);
  return slot;
}

absl::Status ArenaEntries::Publish(std::unique_ptr<ArenaSlot> slot, ArenaRoom room) {
  const EntryKey key = slot->meta.key;
  const std::lock_guard<std::mutex> lock(impl_->mutex);
  // On a duplicate the room falls back to the arena in its destructor: parameters are destroyed
  // after this lock.
  if (!impl_->entries.try_emplace(key, std::move(slot)).second) {
    return absl::AlreadyExistsError(absl::StrCat(impl_->name, ": the entry is there already"));
  }
  room.entries_ = nullptr;
  return absl::OkStatus();
}

ArenaPin ArenaEntries::Find(const EntryKey& key) {
  ArenaPin pin;
  const std::lock_guard<std::mutex> lock(impl_->mutex);
  const auto found = impl_->entries.find(key);
  if (found == impl_->entries.end()) return pin;
  impl_->Pin(*found->second);
  pin.entries_ = this;
  pin.slot_ = found->second.get();
  return pin;
}

ArenaPins ArenaEntries::FindAll(std::span<const Digest> digests, EntryKind kind) {
  // Far enough for the table's lines to come while others are looked at.
  constexpr size_t kAhead = 8;
  ArenaPins pins;
  pins.entries_ = this;
  pins.slots_.reserve(digests.size() + 1);  // rows are often followed by a checkpoint
  const std::lock_guard<std::mutex> lock(impl_->mutex);
  for (size_t i = 0; i < digests.size(); ++i) {
    if (i + kAhead < digests.size()) impl_->entries.prefetch({digests[i + kAhead], kind});
    const auto found = impl_->entries.find({digests[i], kind});
    if (found == impl_->entries.end()) break;
    __builtin_prefetch(found->second.get());
    pins.slots_.push_back(found->second.get());
  }
  for (ArenaSlot* slot : pins.slots_) impl_->Pin(*slot);
  return pins;
}

bool ArenaEntries::Contains(const EntryKey& key) const {
  const std::lock_guard<std::mutex> lock(impl_->mutex);
  return impl_->entries.contains(key);
}

bool ArenaEntries::Erase(const EntryKey& key) {
  const std::lock_guard<std::mutex> lock(impl_->mutex);
  return impl_->Erase(impl_->entries.find(key));
}

bool ArenaEntries::Erase(const ArenaPin& pin) {
  const std::lock_guard<std::mutex> lock(impl_->mutex);
  const auto found = impl_->entries.find(pin.slot()->meta.key);
  return found != impl_->entries.end() && found->second.get() == pin.slot() && impl_->Erase(found);
}

bool ArenaEntries::Pinned(const EntryKey& key) const {
  const std::lock_guard<std::mutex> lock(impl_->mutex);
  const auto found = impl_->entries.find(key);
  return found != impl_->entries.end() && found->second->pins > 0;
}

ArenaStats ArenaEntries::stats() const {
  const std::lock_guard<std::mutex> lock(impl_->mutex);
  return {.used_bytes = impl_->arena_bytes - impl_->allocator.free_bytes(),
          .pinned_bytes = impl_->pinned_bytes,
          .entries = impl_->entries.size()};
}

}  // namespace cairn::store
