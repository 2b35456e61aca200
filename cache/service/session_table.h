// session_table.h: open sessions by token, with what the wire keeps for each: where the client is,
// and the staging memory it gave. Leases and reservations are the core's.
//
// Threads:   any.
// Ownership: calls in flight share their session, so memory that is being read stays mapped until
// they end. Units:     bytes. Errors:    ABORTED for a token that names no open session.
#ifndef CAIRN_CACHE_SERVICE_SESSION_TABLE_H_
#define CAIRN_CACHE_SERVICE_SESSION_TABLE_H_

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "cache/core/cache_core.h"
#include "store/base/random.h"
#include "store/device/shared_memory.h"

namespace cairn::cache {

class ClientSession {
 public:
  ClientSession(SessionId core_id, std::string token, bool same_host)
      : core_id_(core_id), token_(std::move(token)), same_host_(same_host) {}

  SessionId core_id() const { return core_id_; }
  const std::string& token() const { return token_; }
  bool same_host() const { return same_host_; }

  // INVALID_ARGUMENT or RESOURCE_EXHAUSTED if a piece of that size is not acceptable now.
  absl::Status CheckStagingRoom(uint64_t bytes) const;
  // The id of the piece; checks the room again.
  absl::StatusOr<uint32_t> AddStaging(store::SharedMemory memory);
  // INVALID_ARGUMENT if the range is not wholly in a piece. The bytes may change at any time: their
  // owner is a client.
  absl::StatusOr<std::span<const uint8_t>> StagingRange(uint32_t piece, uint64_t offset,
                                                        uint64_t bytes) const;

 private:
  absl::Status CheckStagingRoomLocked(uint64_t bytes) const;

  const SessionId core_id_;
  const std::string token_;
  const bool same_host_;
  mutable std::mutex mutex_;
  std::vector<store::SharedMemory> staging_;
  uint64_t staging_bytes_ = 0;
};

class SessionTable {
 public:
  explicit SessionTable(Random& random) : random_(random) {}

  std::shared_ptr<ClientSession> Add(SessionId core_id, bool same_host);
  void Remove(const std::string& token);
  absl::StatusOr<std::shared_ptr<ClientSession>> Find(const std::string& token) const;
  size_t size() const;

 private:
  Random& random_;
  mutable std::mutex mutex_;
  absl::flat_hash_map<std::string, std::shared_ptr<ClientSession>> sessions_;
};

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_SERVICE_SESSION_TABLE_H_
