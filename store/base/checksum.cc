#define XXH_INLINE_ALL
#include "store/base/checksum.h"

#include <xxhash.h>

namespace cairn {

uint64_t Checksum(std::span<const uint8_t> data) { return XXH3_64bits(data.data(), data.size()); }

}  // namespace cairn
