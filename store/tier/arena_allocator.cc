#include "store/tier/arena_allocator.h"

#include <cassert>
#include <iterator>

namespace cairn::store {

ArenaAllocator::ArenaAllocator(uint64_t bytes) {
  if (bytes > 0) Add(0, bytes);
}

void ArenaAllocator::Add(uint64_t offset, uint64_t bytes) {
  by_offset_.emplace(offset, bytes);
  by_size_.emplace(bytes, offset);
  free_bytes_ += bytes;
}

void ArenaAllocator::Remove(std::map<uint64_t, uint64_t>::iterator extent) {
  by_size_.erase({extent->second, extent->first});
  free_bytes_ -= extent->second;
  by_offset_.erase(extent);
}

std::optional<uint64_t> ArenaAllocator::Take(uint64_t bytes) {
  assert(bytes > 0);
  const auto fit = by_size_.lower_bound({bytes, 0});
  if (fit == by_size_.end()) return std::nullopt;
  const auto [extent_bytes, offset] = *fit;
  Remove(by_offset_.find(offset));
  if (extent_bytes > bytes) Add(offset + bytes, extent_bytes - bytes);
  return offset;
}

void ArenaAllocator::Return(uint64_t offset, uint64_t bytes) {
  auto next = by_offset_.lower_bound(offset);
  assert(next == by_offset_.end() || next->first >= offset + bytes);
  if (next != by_offset_.end() && next->first == offset + bytes) {
    bytes += next->second;
    const auto joined = next++;
    Remove(joined);
  }
  if (next != by_offset_.begin()) {
    const auto before = std::prev(next);
    assert(before->first + before->second <= offset);
    if (before->first + before->second == offset) {
      offset = before->first;
      bytes += before->second;
      Remove(before);
    }
  }
  Add(offset, bytes);
}

}  // namespace cairn::store
