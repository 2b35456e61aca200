// checksum.h: XXH3-64 for accidental damage only. It never decides identity (digest.h does).
//
// Inlined on purpose: up to three times the shared library's speed. Units: bytes. Threads: pure.
#ifndef CAIRN_STORE_BASE_CHECKSUM_H_
#define CAIRN_STORE_BASE_CHECKSUM_H_

#include <cstdint>
#include <span>

namespace cairn {

uint64_t Checksum(std::span<const uint8_t> data);

}  // namespace cairn

#endif  // CAIRN_STORE_BASE_CHECKSUM_H_
