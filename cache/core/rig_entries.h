// rig_entries.h: a small layout, and entries whose bytes are a function of their key, so that any
// wrong byte is seen. For tests and simulation.
//
// Threads: pure functions.
#ifndef CAIRN_CACHE_CORE_RIG_ENTRIES_H_
#define CAIRN_CACHE_CORE_RIG_ENTRIES_H_

#include <span>
#include <string>
#include <vector>

#include "cache/client/cache_api.h"
#include "store/base/checksum.h"
#include "store/base/random.h"

namespace cairn::cache {

// Rows: 2,148 B, one I/O unit. Checkpoints: 5,120 B, two.
inline constexpr uint64_t kRowsUnits = 1, kCheckpointUnits = 2;

inline NamespaceSpec RigSpec(const std::string& tenant = "") {
  LayoutDescriptor layout;
  layout.model = "rig";
  layout.numerics = "plain";
  layout.components = {{"csa", LayoutScope::kPrefix, 4, 32, 64, 8, "x"},
                       {"hca", LayoutScope::kPrefix, 128, 1, 100, 0, "x"},
                       {"window", LayoutScope::kTrailing, 1, 128, 40, 0, "x"}};
  return {layout, tenant};
}

inline std::vector<uint8_t> PayloadOf(const EntryKey& key) {
  const LayoutScope scope =
      key.kind == EntryKind::kRows ? LayoutScope::kPrefix : LayoutScope::kTrailing;
  uint64_t seed = static_cast<uint64_t>(key.kind);
  for (size_t i = 0; i < 8; ++i) seed = seed * 257 + key.digest.bytes[i];
  SeededRandom random(seed);
  std::vector<uint8_t> payload(RigSpec().layout.entry_bytes(scope));
  random.Fill(payload);
  return payload;
}

inline std::vector<EntryPart> PartsOf(EntryKind kind, std::span<const uint8_t> payload) {
  std::vector<EntryPart> parts;
  size_t offset = 0;
  for (const uint32_t bytes : RigSpec().layout.part_bytes(
           kind == EntryKind::kRows ? LayoutScope::kPrefix : LayoutScope::kTrailing)) {
    parts.push_back({bytes, Checksum(payload.subspan(offset, bytes))});
    offset += bytes;
  }
  return parts;
}

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_CORE_RIG_ENTRIES_H_
