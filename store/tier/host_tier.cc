#include "store/tier/host_tier.h"

#include <algorithm>
#include <cstring>
#include <thread>

#include "store/base/checksum.h"
#include "store/device/prefault.h"
#include "store/device/shared_memory.h"

namespace cairn::store {
namespace {

// Beside requests: a call holds up whoever maps or unmaps memory meanwhile, here for some 10 ms.
constexpr uint64_t kPrefaultChunkBytes = 4ull << 20;
constexpr unsigned kPrefaultThreadsMax = 8;

std::span<const uint8_t> AsBytes(std::span<const uint64_t> table) {
  return {reinterpret_cast<const uint8_t*>(table.data()), table.size_bytes()};
}

void WriteTable(std::span<const EntryPart> parts, std::span<uint8_t> room) {
  for (size_t i = 0; i < parts.size(); ++i) {
    std::memcpy(room.data() + i * sizeof(uint64_t), &parts[i].xxh3, sizeof(uint64_t));
  }
}

std::span<const uint64_t> TableOf(const uint8_t* arena, const ArenaSlot& slot) {
  return {
      reinterpret_cast<const uint64_t*>(arena + slot.offset + PartTableOffset(slot.payload_bytes)),
      slot.part_count};
}

}  // namespace

struct HostTier::Impl {
  explicit Impl(SharedMemory shared)
      : memory(std::move(shared)), entries("host tier", memory.size()) {}

  SharedMemory memory;
  ArenaEntries entries;
  std::optional<Prefault> prefault;  // in the background
};

std::span<const uint8_t> HostPin::payload() const {
  return {arena_ + pin_.slot()->offset, pin_.slot()->payload_bytes};
}

bool HostPin::TableIntact() const {
  return Checksum(AsBytes(TableOf(arena_, *pin_.slot()))) == pin_.slot()->table_xxh3;
}

void HostPins::Add(HostPin pin) {
  arena_ = pin.arena_;
  pins_.Add(std::move(pin.pin_));
}

absl::StatusOr<std::unique_ptr<HostTier>> HostTier::Create(const Options& options) {
  const bool now = options.memory == ArenaMemory::kAtCreate;
  CAIRN_ASSIGN_OR_RETURN(SharedMemory memory,
                         SharedMemory::Create("cairn-arena", {.bytes = options.capacity_bytes,
                                                              .huge_pages = options.huge_pages,
                                                              .prefault = now}));
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
std::span<const uint8_t> HostTier::arena() const { return impl_->memory.bytes(); }

absl::StatusOr<HostRoom> HostTier::Reserve(uint64_t payload_bytes, size_t parts) {
  HostRoom room;
  CAIRN_ASSIGN_OR_RETURN(room.room_, impl_->entries.Reserve(payload_bytes, parts));
  room.arena_ = impl_->memory.writable().data();
  return room;
}

absl::Status HostTier::Publish(EntryMeta meta, HostRoom room) {
  CAIRN_ASSIGN_OR_RETURN(std::unique_ptr<ArenaSlot> slot,
                         impl_->entries.Fit(std::move(meta), room.room_));
  WriteTable(slot->meta.parts, room.bytes().subspan(PartTableOffset(slot->payload_bytes)));
  return impl_->entries.Publish(std::move(slot), std::move(room.room_));
}

std::optional<HostPin> HostTier::Find(const EntryKey& key) {
  HostPin pin;
  pin.pin_ = impl_->entries.Find(key);
  pin.arena_ = impl_->memory.bytes().data();
  return pin ? std::optional<HostPin>(std::move(pin)) : std::nullopt;
}

HostPins HostTier::FindAll(std::span<const Digest> digests, EntryKind kind) {
  HostPins pins;
  pins.pins_ = impl_->entries.FindAll(digests, kind);
  pins.arena_ = impl_->memory.bytes().data();
  return pins;
}

bool HostTier::Contains(const EntryKey& key) const { return impl_->entries.Contains(key); }
bool HostTier::Erase(const EntryKey& key) { return impl_->entries.Erase(key); }
bool HostTier::Erase(const HostPin& pin) { return impl_->entries.Erase(pin.pin_); }
bool HostTier::Pinned(const EntryKey& key) const { return impl_->entries.Pinned(key); }

HostTierStats HostTier::stats() const {
  const ArenaStats arena = impl_->entries.stats();
  return {.capacity_bytes = impl_->memory.size(),
          .used_bytes = arena.used_bytes,
          .pinned_bytes = arena.pinned_bytes,
          .entries = arena.entries,
          .touched_bytes = impl_->prefault.has_value() ? impl_->prefault->touched_bytes() : 0};
}

}  // namespace cairn::store
