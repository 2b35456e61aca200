// roles.h: what a client does in a process of its own, over and over until it is told to stop
// (SIGTERM: it ends in good order) or killed. It says a byte (child_process.h) when it is in the
// middle of what its name says, and each time again.
//
// Threads: one. Errors: DATA_LOSS with WRONG: it was given bytes that were never put.
#ifndef CAIRN_TESTS_CLIENTS_ROLES_H_
#define CAIRN_TESTS_CLIENTS_ROLES_H_

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "store/base/status.h"

namespace cairn::clients {

enum class Role : uint8_t {
  kMatch,      // leases with the answer of a match, and drops them
  kHold,       // maps and keeps many prefixes
  kStream,     // in a gRPC stream
  kBulk,       // at the bulk port
  kPut,        // between reservation, staging and commit
  kPutStream,  // the same over TCP
  kWait,       // reserves what others reserve, and waits for them
  kSession,    // comes and goes
  // Those below never get further by themselves.
  kHoldForever,   // leases as much as it is given, and lets go of nothing
  kStreamUnread,  // asks for a gRPC stream and reads only its head
  kBulkByByte,    // takes one byte a second from the bulk port
  kBulkUnread,    // shows a ticket and takes nothing
};
inline constexpr std::array<std::string_view, 12> kRoleNames = {
    "match", "hold",    "stream",       "bulk",          "put",          "put-stream",
    "wait",  "session", "hold-forever", "stream-unread", "bulk-by-byte", "bulk-unread"};
inline constexpr size_t kBusyRoles = 8;  // the first ones: those that a campaign kills anywhere

inline std::string_view NameOf(Role role) { return kRoleNames[static_cast<size_t>(role)]; }

struct ClientFlags {
  std::string role;  // empty: the campaign itself
  std::string socket;
  std::string tcp;  // host:port
  uint64_t seed = 0;
  std::vector<std::string> ToArguments() const;
};

absl::Status RunRole(const ClientFlags& flags);

}  // namespace cairn::clients

#endif  // CAIRN_TESTS_CLIENTS_ROLES_H_
