// Compiled for AVX-512, and called only where the processor has it: nothing here may be shared with
// other sources, which is why this includes nothing that has functions of its own but xxhash.h,
// whose are static so.
#define XXH_PREFETCH_DIST 2048  // as in checksum.cc
#define XXH_INLINE_ALL
#include "store/base/checksum_avx512.h"

#include <xxhash.h>

namespace cairn {

uint64_t ChecksumAvx512(const uint8_t* data, size_t bytes) { return XXH3_64bits(data, bytes); }

}  // namespace cairn
