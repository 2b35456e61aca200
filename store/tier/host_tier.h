// host_tier.h: entries in host memory, in one arena that readers on the same host map read-only.
//
// The arena is a memfd of fixed, sealed size, whose memory is taken at creation or, beside serving,
// soon after. An entry lies contiguous in it at an offset that is a multiple of kIoAlignment, so
// disk reads land in it directly. Put is two steps: Reserve room, fill it, Publish. An entry is
// visible whole or not at all.
//
// Behind the payload, at PartTableOffset, lies its part table: the XXH3 of each part, 8 B each,
// little-endian. A reader that is told (offset, XXH3 of the table) and knows the parts' sizes can
// verify all of it: if its hold was lost and another entry lies there by now, the table does not
// match what it was told, or the payload does not match the table.
//
// Threads:   all methods from any thread; no I/O and no copying under the lock.
// Ownership: HostRoom, HostPin and HostPins are move-only holds; the tier must outlive them.
// Units:     bytes.
// Errors:    RESOURCE_EXHAUSTED from Reserve: no extent of that size is free; evict and retry.
#ifndef CAIRN_STORE_TIER_HOST_TIER_H_
#define CAIRN_STORE_TIER_HOST_TIER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>

#include "store/base/entry.h"
#include "store/base/status.h"
#include "store/tier/arena_entries.h"

namespace cairn::store {

class HostTier;

// What an entry takes in the arena.
constexpr uint64_t HostRoomBytes(uint64_t payload_bytes, size_t parts) {
  return ArenaRoomBytes(payload_bytes, parts);
}

// Room for one entry, unpublished: returned to the arena if dropped.
class HostRoom {
 public:
  // HostRoomBytes of what was asked; address aligned to kIoAlignment. Valid while this lives. What
  // lies behind the payload is Publish's.
  std::span<uint8_t> bytes() const { return {arena_ + room_.offset(), room_.bytes()}; }
  uint64_t offset() const { return room_.offset(); }

 private:
  friend class HostTier;
  uint8_t* arena_ = nullptr;
  ArenaRoom room_;
};

// Where one published entry lies. The spans are into the arena.
struct HostExtent {
  uint64_t offset = 0;
  std::span<const uint8_t> payload;
  std::span<const uint64_t> part_xxh3;  // the table
  uint64_t table_xxh3 = 0;              // of the table's bytes, when it was published
};

// A reader's hold on one published entry: its bytes stay where they are while this lives, evicted
// or not.
class HostPin {
 public:
  explicit operator bool() const { return pin_.slot() != nullptr; }
  const EntryMeta& meta() const { return pin_.slot()->meta; }
  uint64_t offset() const { return pin_.slot()->offset; }  // in the arena
  std::span<const uint8_t> payload() const;                // meta().payload_bytes() bytes
  // Whether the table still says what was published.
  bool TableIntact() const;

 private:
  friend class HostTier;
  friend class HostPins;
  const uint8_t* arena_ = nullptr;
  ArenaPin pin_;
};

// The same for many entries: one word each, and one lock for all.
class HostPins {
 public:
  size_t size() const { return pins_.size(); }
  // Here, because a hit asks for hundreds.
  HostExtent operator[](size_t i) const {
    const ArenaSlot& slot = pins_[i];
    const uint8_t* const entry = arena_ + slot.offset;
    const auto* const table =
        reinterpret_cast<const uint64_t*>(entry + PartTableOffset(slot.payload_bytes));
    return {slot.offset, {entry, slot.payload_bytes}, {table, slot.part_count}, slot.table_xxh3};
  }
  // Takes over one more. REQUIRES: it holds an entry of the same tier as the others.
  void Add(HostPin pin);

 private:
  friend class HostTier;
  const uint8_t* arena_ = nullptr;
  ArenaPins pins_;
};

struct HostTierStats {
  uint64_t capacity_bytes = 0;
  uint64_t used_bytes = 0;  // published + reserved + erased but still pinned
  uint64_t pinned_bytes = 0;
  uint64_t entries = 0;
  uint64_t touched_bytes = 0;  // taken in the background so far
};

// When the arena's memory is taken: its first touch is slow (0.3 to 0.8 GB/s).
enum class ArenaMemory : uint8_t {
  kAtCreate,  // Create returns when all of it is there
  // By threads of the tier's own, from the beginning on, as room in an empty arena is given.
  // Whoever is faster than they are touches it himself.
  kInBackground,
  kAtUse,  // tests
};

class HostTier {
 public:
  struct Options {
    uint64_t capacity_bytes = 0;  // rounded up to SharedMemory's unit
    ArenaMemory memory = ArenaMemory::kAtCreate;
    bool huge_pages = false;  // SharedMemory::Options
    // For kInBackground: told once, on another thread, that the machine has no such memory after
    // all. The arena must not be used any further.
    std::function<void(const absl::Status&)> memory_failed = nullptr;
  };
  // RESOURCE_EXHAUSTED with the asked size in the message when the machine has no such memory.
  static absl::StatusOr<std::unique_ptr<HostTier>> Create(const Options& options);
  ~HostTier();

  // Sealed against shrinking and growing; writable mappings by others are refused
  // (F_SEAL_FUTURE_WRITE). Owned by the tier; duplicate it to keep it.
  int arena_fd() const;
  uint64_t arena_bytes() const;
  // All of it, for pinning on a GPU.
  std::span<const uint8_t> arena() const;

  absl::StatusOr<HostRoom> Reserve(uint64_t payload_bytes, size_t parts);
  // Writes the part table and makes the entry visible. Checks that meta's sizes fit the room; does
  // not compute checksums (who fills it does). ALREADY_EXISTS: the key is there; the room is
  // returned, the old entry is untouched.
  absl::Status Publish(EntryMeta meta, HostRoom room);

  // nullopt is a miss.
  std::optional<HostPin> Find(const EntryKey& key);
  // Of `digests` the leading ones whose entry of this kind is there.
  HostPins FindAll(std::span<const Digest> digests, EntryKind kind);
  bool Contains(const EntryKey& key) const;
  // Invisible at once; its bytes return when the last pin falls. False if absent.
  bool Erase(const EntryKey& key);
  // The same of the very copy that is pinned: false if it went before, whatever is there by now.
  bool Erase(const HostPin& pin);
  // True while some HostPin holds the entry.
  bool Pinned(const EntryKey& key) const;

  HostTierStats stats() const;

 private:
  struct Impl;
  explicit HostTier(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace cairn::store

#endif  // CAIRN_STORE_TIER_HOST_TIER_H_
