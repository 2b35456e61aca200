// derived_entry.h: entries whose bytes are a function of their key, for tests: whoever reads one
// back can tell whether any byte is wrong without having kept it.
//
// Threads: pure functions. Units: bytes.
#ifndef CAIRN_CACHE_CORE_DERIVED_ENTRY_H_
#define CAIRN_CACHE_CORE_DERIVED_ENTRY_H_

#include <cstdint>
#include <span>
#include <vector>

#include "cache/client/layout.h"
#include "store/base/checksum.h"
#include "store/base/entry.h"
#include "store/base/random.h"

namespace cairn::cache {

inline LayoutScope ScopeOf(EntryKind kind) {
  return kind == EntryKind::kRows ? LayoutScope::kPrefix : LayoutScope::kTrailing;
}

inline std::vector<uint8_t> DerivedPayload(const LayoutDescriptor& layout, const EntryKey& key) {
  uint64_t seed = static_cast<uint64_t>(key.kind);
  for (size_t i = 0; i < 8; ++i) seed = seed * 257 + key.digest.bytes[i];
  SeededRandom random(seed);
  std::vector<uint8_t> payload(layout.entry_bytes(ScopeOf(key.kind)));
  random.Fill(payload);
  return payload;
}

inline std::vector<EntryPart> PartsOfPayload(const LayoutDescriptor& layout, EntryKind kind,
                                             std::span<const uint8_t> payload) {
  std::vector<EntryPart> parts;
  size_t offset = 0;
  for (const uint32_t bytes : layout.part_bytes(ScopeOf(kind))) {
    parts.push_back({bytes, Checksum(payload.subspan(offset, bytes))});
    offset += bytes;
  }
  return parts;
}

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_CORE_DERIVED_ENTRY_H_
