#include "store/tier/host_tier.h"

#include <mutex>

#include "absl/container/flat_hash_map.h"
#include "store/base/limits.h"
#include "store/device/shared_memory.h"
#include "store/tier/arena_allocator.h"

namespace cairn::store {

// One published entry. It outlives its erasure while pinned.
struct HostSlot {
  EntryMeta meta;
  uint64_t offset = 0;
  uint64_t bytes = 0;  // taken in the arena
  uint64_t pins = 0;   // guarded by the tier's mutex, as is erased
  bool erased = false;
};

struct HostTier::Impl {
  explicit Impl(SharedMemory shared) : memory(std::move(shared)), allocator(memory.size()) {}

  // REQUIRES: mutex.
  void Free(const HostSlot& slot) { allocator.Return(slot.offset, slot.bytes); }

  SharedMemory memory;
  mutable std::mutex mutex;
  ArenaAllocator allocator;                                          // guarded by mutex
  absl::flat_hash_map<EntryKey, std::unique_ptr<HostSlot>> entries;  // guarded by mutex
  uint64_t pinned_bytes = 0;                                         // guarded by mutex
};

HostRoom& HostRoom::operator=(HostRoom&& other) noexcept {
  std::swap(tier_, other.tier_);
  std::swap(bytes_, other.bytes_);
  std::swap(offset_, other.offset_);
  return *this;
}

HostRoom::~HostRoom() {
  if (tier_ == nullptr) return;
  const std::lock_guard<std::mutex> lock(tier_->impl_->mutex);
  tier_->impl_->allocator.Return(offset_, bytes_.size());
}

HostPin& HostPin::operator=(HostPin&& other) noexcept {
  std::swap(tier_, other.tier_);
  std::swap(slot_, other.slot_);
  return *this;
}

HostPin::~HostPin() {
  if (slot_ == nullptr) return;
  HostTier::Impl& impl = *tier_->impl_;
  const std::lock_guard<std::mutex> lock(impl.mutex);
  if (--slot_->pins > 0) return;
  impl.pinned_bytes -= slot_->bytes;
  if (slot_->erased) {
    impl.Free(*slot_);
    delete slot_;
  }
}

const EntryMeta& HostPin::meta() const { return slot_->meta; }
uint64_t HostPin::offset() const { return slot_->offset; }

std::span<const uint8_t> HostPin::payload() const {
  return tier_->impl_->memory.bytes().subspan(slot_->offset, slot_->meta.payload_bytes());
}

absl::StatusOr<std::unique_ptr<HostTier>> HostTier::Create(const Options& options) {
  CAIRN_ASSIGN_OR_RETURN(SharedMemory memory,
                         SharedMemory::Create("cairn-arena", {.bytes = options.capacity_bytes,
                                                              .prefault = options.prefault}));
  return std::unique_ptr<HostTier>(new HostTier(std::make_unique<Impl>(std::move(memory))));
}

HostTier::HostTier(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
HostTier::~HostTier() = default;

int HostTier::arena_fd() const { return impl_->memory.descriptor(); }
uint64_t HostTier::arena_bytes() const { return impl_->memory.size(); }

absl::StatusOr<HostRoom> HostTier::Reserve(uint64_t bytes) {
  if (bytes == 0 || bytes > kEntryBytesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("host tier: entry of ", bytes, " bytes, must be 1 to ", kEntryBytesMax));
  }
  const uint64_t taken = RoundUpToIo(bytes);
  const std::lock_guard<std::mutex> lock(impl_->mutex);
  const std::optional<uint64_t> offset = impl_->allocator.Take(taken);
  if (!offset.has_value()) {
    return absl::ResourceExhaustedError(
        absl::StrCat("host tier: no free extent of ", taken, " bytes; ",
                     impl_->allocator.free_bytes(), " of ", arena_bytes(), " are free, at most ",
                     impl_->allocator.largest_free(), " together; evict and retry"));
  }
  HostRoom room;
  room.tier_ = this;
  room.offset_ = *offset;
  room.bytes_ = impl_->memory.writable().subspan(*offset, taken);
  return room;
}

absl::Status HostTier::Publish(EntryMeta meta, HostRoom room) {
  if (room.tier_ != this) {
    return absl::InvalidArgumentError("host tier: the room is empty or another tier's");
  }
  const uint64_t payload = meta.payload_bytes();
  if (meta.parts.empty() || meta.parts.size() > kPartsPerEntryMax || payload == 0 ||
      payload > room.bytes_.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("host tier: entry of ", meta.parts.size(), " parts and ", payload,
                     " bytes does not fit its room of ", room.bytes_.size()));
  }
  auto slot = std::make_unique<HostSlot>();
  slot->meta = std::move(meta);
  slot->offset = room.offset_;
  slot->bytes = room.bytes_.size();
  const EntryKey key = slot->meta.key;
  const std::lock_guard<std::mutex> lock(impl_->mutex);
  // On a duplicate the room falls back to the arena in its destructor: parameters are destroyed
  // after this lock.
  if (!impl_->entries.try_emplace(key, std::move(slot)).second) {
    return absl::AlreadyExistsError("host tier: the entry is there already");
  }
  room.tier_ = nullptr;
  return absl::OkStatus();
}

std::optional<HostPin> HostTier::Find(const EntryKey& key) {
  const std::lock_guard<std::mutex> lock(impl_->mutex);
  const auto found = impl_->entries.find(key);
  if (found == impl_->entries.end()) return std::nullopt;
  HostSlot& slot = *found->second;
  if (slot.pins++ == 0) impl_->pinned_bytes += slot.bytes;
  HostPin pin;
  pin.tier_ = this;
  pin.slot_ = &slot;
  return pin;
}

bool HostTier::Contains(const EntryKey& key) const {
  const std::lock_guard<std::mutex> lock(impl_->mutex);
  return impl_->entries.contains(key);
}

bool HostTier::Erase(const EntryKey& key) {
  const std::lock_guard<std::mutex> lock(impl_->mutex);
  const auto found = impl_->entries.find(key);
  if (found == impl_->entries.end()) return false;
  std::unique_ptr<HostSlot> slot = std::move(found->second);
  impl_->entries.erase(found);
  if (slot->pins == 0) {
    impl_->Free(*slot);
    return true;
  }
  slot->erased = true;
  slot.release();  // the last HostPin deletes it
  return true;
}

bool HostTier::Pinned(const EntryKey& key) const {
  const std::lock_guard<std::mutex> lock(impl_->mutex);
  const auto found = impl_->entries.find(key);
  return found != impl_->entries.end() && found->second->pins > 0;
}

HostTierStats HostTier::stats() const {
  const std::lock_guard<std::mutex> lock(impl_->mutex);
  return {.capacity_bytes = impl_->memory.size(),
          .used_bytes = impl_->memory.size() - impl_->allocator.free_bytes(),
          .pinned_bytes = impl_->pinned_bytes,
          .entries = impl_->entries.size()};
}

}  // namespace cairn::store
