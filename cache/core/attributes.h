// attributes.h: what the cache stores beside an entry, so that the index can be rebuilt from the
// entries alone:
//   version u8 = 1 || namespace root (32 B) || parent digest (32 B) || block index u32 LE (69
//   bytes)
// The parent of block 0 is the namespace root; that and the index bound are checked when it is
// read.
//
// Threads: pure functions. Errors: DATA_LOSS names what does not fit.
#ifndef CAIRN_CACHE_CORE_ATTRIBUTES_H_
#define CAIRN_CACHE_CORE_ATTRIBUTES_H_

#include <cstdint>
#include <string>

#include "store/base/digest.h"
#include "store/base/limits.h"
#include "store/base/status.h"

namespace cairn::cache {

inline constexpr uint8_t kAttributesVersion = 1;
inline constexpr size_t kAttributesBytes = 1 + 2 * Digest::kBytes + sizeof(uint32_t);
static_assert(kAttributesBytes <= kAttributesBytesMax);

struct EntryAttributes {
  Digest root;
  Digest parent;
  uint32_t index = 0;
  friend bool operator==(const EntryAttributes&, const EntryAttributes&) = default;
};

// Whether parent and index fit each other and the bounds.
bool Consistent(const EntryAttributes& attributes);

std::string EncodeAttributes(const EntryAttributes& attributes);
absl::StatusOr<EntryAttributes> DecodeAttributes(const std::string& bytes);

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_CORE_ATTRIBUTES_H_
