// bulk_protocol.h: what both ends of the bulk port share.
//
//   client -> daemon   preamble: "CAIRNBLK", version (u32, little endian), ticket (16 bytes)
//   daemon -> client   the payloads that the ticket's head announced, or of these its stripe
//                      (transfer_order.h), one after another, unframed
//
// and again, on the same connection, with the next ticket of the same session. A ticket that is
// wrong, used or too old gets no answer: the connection is closed. There is nothing to acknowledge:
// the daemon's lease falls when the last byte was copied into its socket, and the client finds
// damage by the entries' checksums.
//
// Under TLS where gRPC is (store/device/tls_stream.h), with the same credentials, else in the
// clear: a ticket that can be overheard gives the bytes away.
//
// Threads: pure functions. Units: bytes.
#ifndef CAIRN_CACHE_CLIENT_BULK_PROTOCOL_H_
#define CAIRN_CACHE_CLIENT_BULK_PROTOCOL_H_

#include <array>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>

namespace cairn::cache {

inline constexpr char kBulkMagic[] = "CAIRNBLK";
inline constexpr size_t kBulkMagicBytes = sizeof(kBulkMagic) - 1;
inline constexpr uint8_t kBulkVersion = 1;
inline constexpr size_t kTicketBytes = 16;
inline constexpr size_t kBulkPreambleBytes = kBulkMagicBytes + 4 + kTicketBytes;
using BulkPreamble = std::array<uint8_t, kBulkPreambleBytes>;

// REQUIRES: ticket.size() == kTicketBytes.
inline BulkPreamble EncodeBulkPreamble(const std::string& ticket) {
  BulkPreamble out{};
  std::memcpy(out.data(), kBulkMagic, kBulkMagicBytes);
  out[kBulkMagicBytes] = kBulkVersion;
  std::memcpy(out.data() + kBulkMagicBytes + 4, ticket.data(), kTicketBytes);
  return out;
}

// The ticket; nullopt for another magic or version.
inline std::optional<std::string> DecodeBulkPreamble(const BulkPreamble& in) {
  BulkPreamble expected = in;
  std::memcpy(expected.data(), kBulkMagic, kBulkMagicBytes);
  expected[kBulkMagicBytes] = kBulkVersion;
  for (size_t i = 1; i < 4; ++i) expected[kBulkMagicBytes + i] = 0;
  if (in != expected) return std::nullopt;
  return std::string(in.begin() + kBulkMagicBytes + 4, in.end());
}

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_CLIENT_BULK_PROTOCOL_H_
