// limits.h: every maximum of the storage side, in one place. A request over a limit is refused by
// name, before memory is taken for it.
#ifndef CAIRN_STORE_BASE_LIMITS_H_
#define CAIRN_STORE_BASE_LIMITS_H_

#include <cstdint>

namespace cairn {

inline constexpr uint32_t kBlockTokens =
    128;  // lcm(4, 128); the unit of hashing, storing, evicting
inline constexpr uint32_t kBlocksPerPrefixMax = 1u << 16;  // 8.4 M tokens
inline constexpr uint64_t kIoAlignment = 4096;  // offsets, lengths and addresses of direct I/O
inline constexpr uint64_t kEntryBytesMax = 64ull << 20;  // a Pro checkpoint is 5.2 MB
inline constexpr uint32_t kPartsPerEntryMax = 512;       // Pro: 62 layers x (window, overlaps)
inline constexpr uint32_t kAttributesBytesMax = 256;
inline constexpr uint32_t kLayoutComponentsMax = 1024;
inline constexpr uint32_t kLayoutTextBytesMax = 4096;  // model and numerics identities, each
inline constexpr uint32_t kTenantBytesMax = 256;
inline constexpr uint32_t kSessionsMax = 1024;
inline constexpr uint32_t kLeasesPerSessionMax = 1024;
// What one session's leases may hold of the arena once all leases together hold more than the
// second.
constexpr uint64_t LeasedBytesPerSessionMax(uint64_t arena_bytes) { return arena_bytes / 2; }
constexpr uint64_t LeasedBytesEasy(uint64_t arena_bytes) { return arena_bytes / 4 * 3; }
inline constexpr uint32_t kReservationsPerSessionMax = 4096;
inline constexpr uint32_t kReserveWaitMillisMax = 60'000;
inline constexpr uint32_t kEntriesPerCommitMax = 256;
inline constexpr uint64_t kStagingBytesMax = 4ull << 30;  // per session
inline constexpr uint64_t kStreamSliceBytes = 1ull << 20;
inline constexpr uint32_t kListEntriesMax = 10'000;

static_assert(kEntryBytesMax % kIoAlignment == 0);
static_assert(kStagingBytesMax >= kEntryBytesMax);

// Bytes rounded up to whole direct-I/O units.
constexpr uint64_t RoundUpToIo(uint64_t bytes) {
  return (bytes + kIoAlignment - 1) / kIoAlignment * kIoAlignment;
}

}  // namespace cairn

#endif  // CAIRN_STORE_BASE_LIMITS_H_
