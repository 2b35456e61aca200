// arena_entries.h: which entries lie where in one arena, and who holds them: the part of a tier in
// memory that does not care what kind of memory it is. The bytes are the tier's.
//
// An entry is found whole or not at all. A pinned one stays where it is, erased or not; its extent
// comes free when the last pin falls.
//
// Threads:   all methods from any thread; nothing is copied under the lock.
// Ownership: ArenaRoom, ArenaPin and ArenaPins are move-only holds; the entries must outlive them.
// Units:     bytes, offsets from the arena's begin.
// Errors:    RESOURCE_EXHAUSTED from Reserve: no extent of that size is free; evict and retry.
#ifndef CAIRN_STORE_TIER_ARENA_ENTRIES_H_
#define CAIRN_STORE_TIER_ARENA_ENTRIES_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "store/base/entry.h"
#include "store/base/limits.h"
#include "store/base/status.h"

namespace cairn::store {

class ArenaEntries;

// One published entry. It outlives its erasure while pinned. What readers need comes first: one
// cache line.
struct alignas(64) ArenaSlot {
  uint64_t offset = 0;
  uint64_t bytes = 0;  // taken in the arena
  uint64_t payload_bytes = 0;
  uint64_t table_xxh3 = 0;  // of the part table's bytes
  size_t part_count = 0;
  uint64_t pins = 0;  // guarded by the entries' mutex, as is erased
  bool erased = false;
  EntryMeta meta;
};

// An extent that nobody else has: comes free if dropped.
class ArenaRoom {
 public:
  ArenaRoom() = default;
  ArenaRoom(ArenaRoom&& other) noexcept { *this = std::move(other); }
  ArenaRoom& operator=(ArenaRoom&& other) noexcept;
  ~ArenaRoom();
  uint64_t offset() const { return offset_; }
  uint64_t bytes() const { return bytes_; }  // 0: none

 private:
  friend class ArenaEntries;
  ArenaEntries* entries_ = nullptr;
  uint64_t offset_ = 0;
  uint64_t bytes_ = 0;
};

class ArenaPin {
 public:
  ArenaPin() = default;
  ArenaPin(ArenaPin&& other) noexcept { *this = std::move(other); }
  ArenaPin& operator=(ArenaPin&& other) noexcept;
  ~ArenaPin();
  const ArenaSlot* slot() const { return slot_; }  // null: none

 private:
  friend class ArenaEntries;
  friend class ArenaPins;
  ArenaEntries* entries_ = nullptr;
  ArenaSlot* slot_ = nullptr;
};

// The same for many entries: one word each, and one lock for all.
class ArenaPins {
 public:
  ArenaPins() = default;
  ArenaPins(ArenaPins&& other) noexcept { *this = std::move(other); }
  ArenaPins& operator=(ArenaPins&& other) noexcept;
  ~ArenaPins();
  size_t size() const { return slots_.size(); }
  const ArenaSlot& operator[](size_t i) const { return *slots_[i]; }
  // Takes over one more. REQUIRES: it holds one of the same entries.
  void Add(ArenaPin pin);

 private:
  friend class ArenaEntries;
  ArenaEntries* entries_ = nullptr;
  std::vector<ArenaSlot*> slots_;
};

struct ArenaStats {
  uint64_t used_bytes = 0;  // published + reserved + erased but still pinned + not yet returned
  uint64_t pinned_bytes = 0;
  uint64_t entries = 0;
};

class ArenaEntries {
 public:
  // An extent that came free. Called under the lock: it must not call back.
  using Freed = std::function<void(uint64_t offset, uint64_t bytes)>;
  // `name` opens messages. With `freed`, what comes free is told to it and is not given out again
  // before Return.
  ArenaEntries(std::string name, uint64_t bytes, Freed freed = nullptr);
  ~ArenaEntries();

  absl::StatusOr<ArenaRoom> Reserve(uint64_t payload_bytes, size_t parts);
  // The extents that `freed` was told of.
  void Return(std::span<const std::pair<uint64_t, uint64_t>> extents);

  // What is to be published in the room, or INVALID_ARGUMENT: the sizes do not fit it.
  absl::StatusOr<std::unique_ptr<ArenaSlot>> Fit(EntryMeta meta, const ArenaRoom& room) const;
  // Found from here on. ALREADY_EXISTS: the key is there; the room is returned, the old entry is
  // untouched. REQUIRES: Fit of this room.
  absl::Status Publish(std::unique_ptr<ArenaSlot> slot, ArenaRoom room);

  // Without a slot: a miss.
  ArenaPin Find(const EntryKey& key);
  // Of `digests` the leading ones whose entry of this kind is there.
  ArenaPins FindAll(std::span<const Digest> digests, EntryKind kind);
  bool Contains(const EntryKey& key) const;
  // Invisible at once. False if absent.
  bool Erase(const EntryKey& key);
  // The same of the very one that is pinned: false if it went before, whatever is there by now.
  bool Erase(const ArenaPin& pin);
  bool Pinned(const EntryKey& key) const;

  ArenaStats stats() const;

 private:
  friend class ArenaRoom;
  friend class ArenaPin;
  friend class ArenaPins;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Of the part table's bytes.
uint64_t TableChecksum(std::span<const EntryPart> parts);

// What an entry takes in an arena, its part table included.
constexpr uint64_t ArenaRoomBytes(uint64_t payload_bytes, size_t parts) {
  return RoundUpToIo(PartTableOffset(payload_bytes) + parts * sizeof(uint64_t));
}

}  // namespace cairn::store

#endif  // CAIRN_STORE_TIER_ARENA_ENTRIES_H_
