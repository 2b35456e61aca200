#include "store/tier/host_tier.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <mutex>
#include <thread>

#include "absl/container/flat_hash_map.h"
#include "store/base/checksum.h"
#include "store/base/limits.h"
#include "store/device/prefault.h"
#include "store/device/shared_memory.h"
#include "store/tier/arena_allocator.h"

namespace cairn::store {
namespace {

// Beside requests: a call holds up whoever maps or unmaps memory meanwhile, here for some 10 ms.
constexpr uint64_t kPrefaultChunkBytes = 4ull << 20;
constexpr unsigned kPrefaultThreadsMax = 8;

static_assert(std::endian::native == std::endian::little, "the table is little-endian");

std::span<const uint8_t> AsBytes(std::span<const uint64_t> table) {
  return {reinterpret_cast<const uint8_t*>(table.data()), table.size_bytes()};
}

void WriteTable(std::span<const EntryPart> parts, std::span<uint8_t> room) {
  for (size_t i = 0; i < parts.size(); ++i) {
    std::memcpy(room.data() + i * sizeof(uint64_t), &parts[i].xxh3, sizeof(uint64_t));
  }
}

}  // namespace

// One published entry. It outlives its erasure while pinned. What readers need comes first: one
// cache line.
struct alignas(64) HostSlot {
  uint64_t offset = 0;
  uint64_t bytes = 0;  // taken in the arena
  uint64_t payload_bytes = 0;
  uint64_t table_xxh3 = 0;
  size_t part_count = 0;
  uint64_t pins = 0;  // guarded by the tier's mutex, as is erased
  bool erased = false;
  EntryMeta meta;
};

struct HostTier::Impl {
  using Entries = absl::flat_hash_map<EntryKey, std::unique_ptr<HostSlot>>;

  explicit Impl(SharedMemory shared) : memory(std::move(shared)), allocator(memory.size()) {}

  // REQUIRES: mutex.
  void Free(const HostSlot& slot) { allocator.Return(slot.offset, slot.bytes); }
  // REQUIRES: mutex.
  void Pin(HostSlot& slot) {
    if (slot.pins++ == 0) pinned_bytes += slot.bytes;
  }
  // REQUIRES: mutex.
  void Unpin(HostSlot* slot) {
    if (--slot->pins > 0) return;
    pinned_bytes -= slot->bytes;
    if (!slot->erased) return;
    Free(*slot);
    delete slot;
  }
  // REQUIRES: mutex.
  bool Erase(Entries::iterator at) {
    if (at == entries.end()) return false;
    std::unique_ptr<HostSlot> slot = std::move(at->second);
    entries.erase(at);
    if (slot->pins == 0) {
      Free(*slot);
      return true;
    }
    slot->erased = true;
    slot.release();  // the last HostPin deletes it
    return true;
  }
  std::span<const uint64_t> TableOf(const HostSlot& slot) const {
    return {reinterpret_cast<const uint64_t*>(memory.bytes().data() + slot.offset +
                                              PartTableOffset(slot.payload_bytes)),
            slot.part_count};
  }

  SharedMemory memory;
  mutable std::mutex mutex;
  ArenaAllocator allocator;          // guarded by mutex
  Entries entries;                   // guarded by mutex
  uint64_t pinned_bytes = 0;         // guarded by mutex
  std::optional<Prefault> prefault;  // in the background
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
  const std::lock_guard<std::mutex> lock(tier_->impl_->mutex);
  tier_->impl_->Unpin(slot_);
}

const EntryMeta& HostPin::meta() const { return slot_->meta; }
uint64_t HostPin::offset() const { return slot_->offset; }

std::span<const uint8_t> HostPin::payload() const {
  return tier_->impl_->memory.bytes().subspan(slot_->offset, slot_->payload_bytes);
}

bool HostPin::TableIntact() const {
  return Checksum(AsBytes(tier_->impl_->TableOf(*slot_))) == slot_->table_xxh3;
}

HostPins& HostPins::operator=(HostPins&& other) noexcept {
  std::swap(tier_, other.tier_);
  slots_.swap(other.slots_);
  return *this;
}

HostPins::~HostPins() {
  if (slots_.empty()) return;
  const std::lock_guard<std::mutex> lock(tier_->impl_->mutex);
  for (HostSlot* slot : slots_) tier_->impl_->Unpin(slot);
}

HostExtent HostPins::operator[](size_t i) const {
  const HostSlot& slot = *slots_[i];
  const HostTier::Impl& impl = *tier_->impl_;
  return {slot.offset, impl.memory.bytes().subspan(slot.offset, slot.payload_bytes),
          impl.TableOf(slot), slot.table_xxh3};
}

void HostPins::Add(HostPin pin) {
  slots_.push_back(pin.slot_);
  tier_ = pin.tier_;
  pin.slot_ = nullptr;
}

absl::StatusOr<std::unique_ptr<HostTier>> HostTier::Create(const Options& options) {
  const bool now = options.memory == ArenaMemory::kAtCreate;
  CAIRN_ASSIGN_OR_RETURN(
      SharedMemory memory,
      SharedMemory::Create("cairn-arena", {.bytes = options.capacity_bytes, .prefault = now}));
  auto impl = std::make_unique<Impl>(std::move(memory));
  if (options.memory == ArenaMemory::kInBackground) {
    const unsigned threads =
        std::clamp(std::thread::hardware_concurrency() / 4, 1u, kPrefaultThreadsMax);
    impl->prefault.emplace(impl->memory.writable(),
                           Prefault::Options{.threads = threads,
                                             .chunk_bytes = kPrefaultChunkBytes,
                                             .failed = options.memory_failed});
  }
  return std::unique_ptr<HostTier>(new HostTier(std::move(impl)));
}

HostTier::HostTier(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
HostTier::~HostTier() = default;

int HostTier::arena_fd() const { return impl_->memory.descriptor(); }
uint64_t HostTier::arena_bytes() const { return impl_->memory.size(); }

absl::StatusOr<HostRoom> HostTier::Reserve(uint64_t payload_bytes, size_t parts) {
  if (payload_bytes == 0 || payload_bytes > kEntryBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat("host tier: entry of ", payload_bytes,
                                                   " bytes, must be 1 to ", kEntryBytesMax));
  }
  if (parts == 0 || parts > kPartsPerEntryMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("host tier: entry of ", parts, " parts, must be 1 to ", kPartsPerEntryMax));
  }
  const uint64_t taken = HostRoomBytes(payload_bytes, parts);
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
      HostRoomBytes(payload, meta.parts.size()) > room.bytes_.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("host tier: entry of ", meta.parts.size(), " parts and ", payload,
                     " bytes does not fit its room of ", room.bytes_.size()));
  }
  auto slot = std::make_unique<HostSlot>();
  slot->meta = std::move(meta);
  slot->offset = room.offset_;
  slot->bytes = room.bytes_.size();
  slot->payload_bytes = payload;
  slot->part_count = slot->meta.parts.size();
  WriteTable(slot->meta.parts, room.bytes_.subspan(PartTableOffset(payload)));
  slot->table_xxh3 = Checksum(AsBytes(impl_->TableOf(*slot)));
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
  impl_->Pin(*found->second);
  HostPin pin;
  pin.tier_ = this;
  pin.slot_ = found->second.get();
  return pin;
}

HostPins HostTier::FindAll(std::span<const Digest> digests, EntryKind kind) {
  // Far enough for the table's lines to come while others are looked at.
  constexpr size_t kAhead = 8;
  HostPins pins;
  pins.tier_ = this;
  pins.slots_.reserve(digests.size() + 1);  // rows are often followed by a checkpoint
  const std::lock_guard<std::mutex> lock(impl_->mutex);
  for (size_t i = 0; i < digests.size(); ++i) {
    if (i + kAhead < digests.size()) impl_->entries.prefetch({digests[i + kAhead], kind});
    const auto found = impl_->entries.find({digests[i], kind});
    if (found == impl_->entries.end()) break;
    __builtin_prefetch(found->second.get());
    pins.slots_.push_back(found->second.get());
  }
  for (HostSlot* slot : pins.slots_) impl_->Pin(*slot);
  return pins;
}

bool HostTier::Contains(const EntryKey& key) const {
  const std::lock_guard<std::mutex> lock(impl_->mutex);
  return impl_->entries.contains(key);
}

bool HostTier::Erase(const EntryKey& key) {
  const std::lock_guard<std::mutex> lock(impl_->mutex);
  return impl_->Erase(impl_->entries.find(key));
}

bool HostTier::Erase(const HostPin& pin) {
  const std::lock_guard<std::mutex> lock(impl_->mutex);
  const auto found = impl_->entries.find(pin.slot_->meta.key);
  return found != impl_->entries.end() && found->second.get() == pin.slot_ && impl_->Erase(found);
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
          .entries = impl_->entries.size(),
          .touched_bytes = impl_->prefault.has_value() ? impl_->prefault->touched_bytes() : 0};
}

}  // namespace cairn::store
