// attach_protocol.h: how memory changes hands on one host. Beside the gRPC socket <name> lies
// <name>.fd; a client connects there, sends one request, and gets one answer on the same
// connection, which then closes; but for look-ups, whose connection stays (see below).
//
//   arena:    {kArena, token}                   -> {OK, arena bytes} + the arena's descriptor
//   staging:  {kStaging, token, bytes} + a memfd -> {OK, id of the piece}
//   GPU pool: {kGpuPool, token}                 -> {OK, pool bytes} + its descriptor, or without
//   one
//                                                  the driver's handle (store/device/gpu_memory.h)
//   look-ups: {kLookups, token}                -> {OK}
//
// Behind an answered kLookups the connection carries matches, because a gRPC call costs several
// times what a look-up does: a LookupRequest and the digests of the chain, answered by a
// LookupAnswer and a v1::MatchResponse, or the text of what is wrong. One at a time; an answer that
// its asker no longer waits for is known by its number. One such connection a session; it ends with
// the session.
//
// The token proves the session (cache.proto). A memfd must be sealed against shrinking, or its
// receiver could be made to fault by the other side; both ends check that before they map it.
//
// Units: bytes. Both ends are processes of one host, so the structs travel as they lie in memory.
#ifndef CAIRN_CACHE_CLIENT_ATTACH_PROTOCOL_H_
#define CAIRN_CACHE_CLIENT_ATTACH_PROTOCOL_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace cairn::cache {

inline constexpr uint32_t kAttachMagic = 0x31464443;  // "CDF1"
inline constexpr uint32_t kAttachVersion = 1;
inline constexpr char kAttachSuffix[] = ".fd";

enum class AttachKind : uint32_t { kArena = 1, kStaging = 2, kGpuPool = 3, kLookups = 4 };

struct AttachRequest {
  uint32_t magic = kAttachMagic;
  uint32_t version = kAttachVersion;
  uint32_t kind = 0;
  uint32_t reserved = 0;
  std::array<uint8_t, 16> token{};
  uint64_t bytes = 0;
};

struct AttachAnswer {
  uint32_t magic = kAttachMagic;
  uint32_t version = kAttachVersion;
  uint32_t code = 0;  // absl::StatusCode
  uint32_t staging = 0;
  uint64_t bytes = 0;
  std::array<char, 168> message{};  // text, zero-padded
  std::array<uint8_t, 64> gpu_handle{};
};

struct LookupRequest {
  uint32_t number = 0;      // of the asker's choice
  uint32_t lease_host = 0;  // this and the next: as in v1::MatchRequest
  uint64_t lease = 0;
};
struct LookupAnswer {
  uint32_t number = 0;  // the request's
  uint32_t code = 0;    // absl::StatusCode
};
// Of one look-up: longer ones are gRPC's.
inline constexpr size_t kLookupBlocksMax = 1024;

static_assert(sizeof(LookupRequest) == 16 && std::is_trivially_copyable_v<LookupRequest>);
static_assert(sizeof(LookupAnswer) == 8 && std::is_trivially_copyable_v<LookupAnswer>);
static_assert(sizeof(AttachRequest) == 40 && std::is_trivially_copyable_v<AttachRequest>);
static_assert(sizeof(AttachAnswer) == 256 && std::is_trivially_copyable_v<AttachAnswer>);

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_CLIENT_ATTACH_PROTOCOL_H_
