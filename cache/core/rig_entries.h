// rig_entries.h: a small layout, and its entries with derived bytes. For tests and simulation.
//
// Threads: pure functions.
#ifndef CAIRN_CACHE_CORE_RIG_ENTRIES_H_
#define CAIRN_CACHE_CORE_RIG_ENTRIES_H_

#include <span>
#include <string>
#include <vector>

#include "cache/client/cache_api.h"
#include "cache/core/derived_entry.h"

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
  return DerivedPayload(RigSpec().layout, key);
}

inline std::vector<EntryPart> PartsOf(EntryKind kind, std::span<const uint8_t> payload) {
  return PartsOfPayload(RigSpec().layout, kind, payload);
}

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_CORE_RIG_ENTRIES_H_
