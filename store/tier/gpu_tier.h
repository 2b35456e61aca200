// gpu_tier.h: entries in GPU memory, in one pool that engines on the same machine map read-only.
//
// The shape is the host tier's: Reserve room, have it filled, Publish; an entry is found whole or
// not at all, and pins keep its bytes in place. An entry lies there in the very bytes it has on the
// other tiers, its part table behind the payload. Who fills a room does so on a stream and
// publishes when the stream has reached the mark behind that, no sooner (GpuMover does).
//
// What is verified: an entry that a mover brings up is checked by the GPU where it lies, part table
// and all, before it is published; one that it takes down is checked on the host before it is.
// In between the memory's own error correction stands guard, and Check looks at every part again.
//
// Memory that comes free is zeroed before it is given out again: Sweep begins that, Reserve calls
// it. Until it is done the bytes count as used, and as `unswept_bytes`.
//
// Threads:   all methods from any thread. Find, FindAll, Contains, Pinned, Erase and the end of a
//            pin never wait for the device and never call it.
// Ownership: rooms and pins are move-only holds; the tier must outlive them, the Gpu the tier.
// Units:     bytes.
// Errors:    RESOURCE_EXHAUSTED from Reserve: no extent of that size is free; if nothing is
// unswept,
//            evict and retry. Else gpu_memory.h.
#ifndef CAIRN_STORE_TIER_GPU_TIER_H_
#define CAIRN_STORE_TIER_GPU_TIER_H_

#include <cstdint>
#include <memory>
#include <span>

#include "store/base/entry.h"
#include "store/base/status.h"
#include "store/device/gpu_memory.h"
#include "store/tier/arena_entries.h"

namespace cairn::store {

class GpuTier;

// Room for one entry, unpublished. Dropped, it is zeroed and returns: only when no work on a stream
// touches it any more.
class GpuRoom {
 public:
  uint8_t* data() const { return pool_ + room_.offset(); }  // the GPU's address
  uint64_t offset() const { return room_.offset(); }
  uint64_t bytes() const { return room_.bytes(); }

 private:
  friend class GpuTier;
  uint8_t* pool_ = nullptr;
  ArenaRoom room_;
};

// Where a published entry lies. The address is the GPU's, in this process.
struct GpuExtent {
  uint64_t offset = 0;  // in the pool, in every process
  const uint8_t* payload = nullptr;
  uint64_t payload_bytes = 0;
  uint64_t table_xxh3 = 0;  // of the part table behind it
};

class GpuPin {
 public:
  explicit operator bool() const { return pin_.slot() != nullptr; }
  const EntryMeta& meta() const { return pin_.slot()->meta; }
  GpuExtent extent() const;

 private:
  friend class GpuTier;
  friend class GpuPins;
  const uint8_t* pool_ = nullptr;
  ArenaPin pin_;
};

// The same for many entries: one lock for all.
class GpuPins {
 public:
  size_t size() const { return pins_.size(); }
  GpuExtent operator[](size_t i) const;
  // Takes over one more. REQUIRES: it holds an entry of the same tier as the others.
  void Add(GpuPin pin);

 private:
  friend class GpuTier;
  const uint8_t* pool_ = nullptr;
  ArenaPins pins_;
};

struct GpuTierStats {
  uint64_t capacity_bytes = 0;
  uint64_t used_bytes = 0;  // published + reserved + erased but still pinned + unswept
  uint64_t pinned_bytes = 0;
  uint64_t unswept_bytes = 0;  // free, but not yet zeroed
  uint64_t entries = 0;
};

class GpuTier {
 public:
  // Takes the pool and zeroes it. RESOURCE_EXHAUSTED, with the asked size: the GPU has no such
  // memory.
  static absl::StatusOr<std::unique_ptr<GpuTier>> Create(Gpu& gpu, uint64_t capacity_bytes);
  ~GpuTier();

  // What an engine needs to map the pool. An engine that dies holding a mapping costs nothing: the
  // memory is the tier's and the mapping ends with the process.
  absl::StatusOr<GpuExport> Export() const;
  uint64_t pool_bytes() const;

  absl::StatusOr<GpuRoom> Reserve(uint64_t payload_bytes, size_t parts);
  // REQUIRES: payload and part table are there. ALREADY_EXISTS: the key is there; the room is
  // returned, the old entry is untouched. INVALID_ARGUMENT: meta's sizes do not fit the room.
  absl::Status Publish(EntryMeta meta, GpuRoom room);

  // Without an entry: a miss.
  GpuPin Find(const EntryKey& key);
  // Of `digests` the leading ones whose entry of this kind is there.
  GpuPins FindAll(std::span<const Digest> digests, EntryKind kind);
  bool Contains(const EntryKey& key) const;
  // Invisible at once; its bytes return when the last pin falls and they are zeroed. False if
  // absent.
  bool Erase(const EntryKey& key);
  // The same of the very copy that is pinned: false if it went before.
  bool Erase(const GpuPin& pin);
  bool Pinned(const EntryKey& key) const;

  // Begins to zero what came free, and returns to use what has been zeroed. Does not wait.
  absl::Status Sweep();

  // The same, and waits until all that came free before is usable.
  absl::Status Settle();

  // Has the GPU check every part and the part table: DATA_LOSS names the first that differs. Waits
  // for the device.
  absl::Status Check(const GpuPin& pin);

  GpuTierStats stats() const;

 private:
  struct Impl;
  explicit GpuTier(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace cairn::store

#endif  // CAIRN_STORE_TIER_GPU_TIER_H_
