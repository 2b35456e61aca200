// arena_allocator.h: which bytes of an arena are free. Best fit over extents, neighbours joined on
// return, both in O(log n) of the free extents.
//
// Best fit and not first fit: entries come in two sizes a layout, and an extent left by one is then
// taken by the next of its size instead of being cut.
//
// Threads: externally synchronised. Units: bytes, multiples of the unit given.
#ifndef CAIRN_STORE_TIER_ARENA_ALLOCATOR_H_
#define CAIRN_STORE_TIER_ARENA_ALLOCATOR_H_

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <utility>

namespace cairn::store {

class ArenaAllocator {
 public:
  explicit ArenaAllocator(uint64_t bytes);

  // The offset of a free extent, now taken; nullopt if none is that long. REQUIRES: bytes > 0.
  std::optional<uint64_t> Take(uint64_t bytes);
  // REQUIRES: exactly what Take gave.
  void Return(uint64_t offset, uint64_t bytes);

  uint64_t free_bytes() const { return free_bytes_; }
  uint64_t largest_free() const { return by_size_.empty() ? 0 : by_size_.rbegin()->first; }
  size_t extents() const { return by_offset_.size(); }

 private:
  void Add(uint64_t offset, uint64_t bytes);
  void Remove(std::map<uint64_t, uint64_t>::iterator extent);

  std::map<uint64_t, uint64_t> by_offset_;           // offset -> bytes
  std::set<std::pair<uint64_t, uint64_t>> by_size_;  // (bytes, offset)
  uint64_t free_bytes_ = 0;
};

}  // namespace cairn::store

#endif  // CAIRN_STORE_TIER_ARENA_ALLOCATOR_H_
