// host_tier.h: entries in host memory, in one arena that readers on the same host map read-only.
//
// The arena is a memfd of fixed, sealed size, prefaulted at creation. An entry lies contiguous in
// it at an offset that is a multiple of kIoAlignment, so disk reads land in it directly and a
// reader needs (offset, length) only. Put is two steps: Reserve room, fill it, Publish. An entry is
// visible whole or not at all.
//
// Threads:   all methods from any thread; no I/O and no copying under the lock.
// Ownership: HostRoom and HostPin are move-only holds; the tier must outlive both.
// Units:     bytes.
// Errors:    RESOURCE_EXHAUSTED from Reserve: no extent of that size is free; evict and retry.
#ifndef CAIRN_STORE_TIER_HOST_TIER_H_
#define CAIRN_STORE_TIER_HOST_TIER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "store/base/entry.h"
#include "store/base/status.h"

namespace cairn::store {

class HostTier;

// Room for one entry, unpublished: returned to the arena if dropped.
class HostRoom {
 public:
  HostRoom() = default;
  HostRoom(HostRoom&& other) noexcept { *this = std::move(other); }
  HostRoom& operator=(HostRoom&& other) noexcept;
  ~HostRoom();
  // The asked size rounded up to kIoAlignment; address aligned to it too. Valid while this lives.
  std::span<uint8_t> bytes() const { return bytes_; }
  uint64_t offset() const { return offset_; }

 private:
  friend class HostTier;
  HostTier* tier_ = nullptr;
  std::span<uint8_t> bytes_;
  uint64_t offset_ = 0;
};

// A reader's hold on one published entry: its bytes stay where they are while this lives, evicted
// or not.
class HostPin {
 public:
  HostPin() = default;
  HostPin(HostPin&& other) noexcept { *this = std::move(other); }
  HostPin& operator=(HostPin&& other) noexcept;
  ~HostPin();
  explicit operator bool() const { return slot_ != nullptr; }
  const EntryMeta& meta() const;
  uint64_t offset() const;                   // in the arena
  std::span<const uint8_t> payload() const;  // meta().payload_bytes() bytes

 private:
  friend class HostTier;
  HostTier* tier_ = nullptr;
  struct HostSlot* slot_ = nullptr;
};

struct HostTierStats {
  uint64_t capacity_bytes = 0;
  uint64_t used_bytes = 0;  // published + reserved + erased but still pinned
  uint64_t pinned_bytes = 0;
  uint64_t entries = 0;
};

class HostTier {
 public:
  struct Options {
    uint64_t capacity_bytes = 0;  // rounded up to kIoAlignment
    bool prefault =
        true;  // false only in tests: the first touch of memory is slow (0.3 to 0.8 GB/s)
  };
  // RESOURCE_EXHAUSTED with the asked size in the message when the machine has no such memory.
  static absl::StatusOr<std::unique_ptr<HostTier>> Create(const Options& options);
  ~HostTier();

  // Sealed against shrinking and growing; writable mappings by others are refused
  // (F_SEAL_FUTURE_WRITE). Owned by the tier; duplicate it to keep it.
  int arena_fd() const;
  uint64_t arena_bytes() const;

  absl::StatusOr<HostRoom> Reserve(uint64_t bytes);
  // Makes the entry visible. Checks that meta's sizes fit the room; does not compute checksums (who
  // fills it does). ALREADY_EXISTS: the key is there; the room is returned, the old entry is
  // untouched.
  absl::Status Publish(EntryMeta meta, HostRoom room);

  // nullopt is a miss.
  std::optional<HostPin> Find(const EntryKey& key);
  bool Contains(const EntryKey& key) const;
  // Invisible at once; its bytes return when the last pin falls. False if absent.
  bool Erase(const EntryKey& key);
  // True while some HostPin holds the entry.
  bool Pinned(const EntryKey& key) const;

  HostTierStats stats() const;

 private:
  friend class HostRoom;
  friend class HostPin;
  struct Impl;
  explicit HostTier(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace cairn::store

#endif  // CAIRN_STORE_TIER_HOST_TIER_H_
