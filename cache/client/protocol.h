// protocol.h: what both ends of the wire share: the version, the bounds that are the wire's own,
// and the translation of Status values and layouts.
//
// Threads: pure functions. Units: bytes, milliseconds.
// Errors:  a code that is not ours becomes one of status.h's, so that callers meet the closed
// vocabulary only.
#ifndef CAIRN_CACHE_CLIENT_PROTOCOL_H_
#define CAIRN_CACHE_CLIENT_PROTOCOL_H_

#include <grpcpp/support/status.h>

#include <cstdint>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "cache/client/layout.h"
#include "cairn/v1/cache.pb.h"
#include "store/base/digest.h"
#include "store/base/limits.h"

namespace cairn::cache {

// Raised when a change cannot be ignored by the other side (proto/FIELD_RULES.md).
inline constexpr uint32_t kProtocolVersion = 2;

inline constexpr uint32_t kTokenBytes = 16;
inline constexpr uint32_t kRequestBytesMax = 4u << 20;
inline constexpr uint32_t kComponentTextBytesMax = 128;
inline constexpr uint32_t kFetchMillisMax = 600'000;
inline constexpr uint32_t kFetchGroupsMax = 64;
inline constexpr uint32_t kFlushMillisMax = 600'000;
inline constexpr uint64_t kStreamCommitBytesMax = kEntryBytesMax;
inline constexpr uint32_t kStagingPiecesMax = 64;
inline constexpr uint32_t kDigestPrefixBytesMin = 4;
inline constexpr uint32_t kCheckpointHitsMax = 16;
inline constexpr uint32_t kStatsCountsMax = 1024;
inline constexpr uint32_t kNameBytesMax = 256;
inline constexpr size_t kErrorTextBytesMax = 1024;
inline constexpr absl::Duration kStreamDeadlineMax = absl::Minutes(10);

static_assert(kBlocksPerPrefixMax * Digest::kBytes + 4096 < kRequestBytesMax);
static_assert(kStreamSliceBytes + 4096 < kRequestBytesMax);
static_assert(kEntriesPerCommitMax * kPartsPerEntryMax * 16ull < kRequestBytesMax);

grpc::Status ToGrpc(const absl::Status& status);
// What a call's end means to a caller of CacheApi. The peer's text is cut to 1 KiB.
absl::Status FromGrpc(const grpc::Status& status);
// For one item of a batch. A code outside of the vocabulary is INTERNAL.
absl::Status StatusFromWire(uint32_t code, const std::string& message);

void EncodeLayout(const LayoutDescriptor& layout, v1::LayoutDescriptor* out);
// As one bytes field. Also for a single digest.
std::string EncodeChain(std::span<const Digest> chain);
std::string EncodeDigest(const Digest& digest);

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_CLIENT_PROTOCOL_H_
