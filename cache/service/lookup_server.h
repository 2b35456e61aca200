// lookup_server.h: matches of sessions on this host, each by a connection of its own
// (cache/client/attach_protocol.h): a gRPC call costs several times what a look-up does.
//
// Bounds: one connection a session, kLookupConnectionsMax in all, each with a thread of its own
// while it lives; whoever finds no room asks by gRPC. A client that does not take its answers for
// kLookupStallMax is cut off, and what the answer leased is given back. A session's end ends its
// connection.
//
// Threads:   any. Ownership: the state outlives it; the destructor ends all.
// Errors:    answered; what is not a look-up closes the connection.
#ifndef CAIRN_CACHE_SERVICE_LOOKUP_SERVER_H_
#define CAIRN_CACHE_SERVICE_LOOKUP_SERVER_H_

#include <memory>
#include <mutex>

#include "absl/container/flat_hash_map.h"
#include "cache/service/session_table.h"
#include "cache/service/worker_pool.h"
#include "store/device/socket.h"

namespace cairn::cache {

struct ServiceState;

inline constexpr size_t kLookupConnectionsMax = 256;
inline constexpr absl::Duration kLookupStallMax = absl::Seconds(5);

class LookupServer {
 public:
  explicit LookupServer(ServiceState& state) : state_(state) {}
  ~LookupServer() { Stop(); }

  // Serves the connection from now on. ALREADY_EXISTS: the session has one; RESOURCE_EXHAUSTED;
  // ABORTED: the session is over.
  absl::Status Take(std::shared_ptr<store::Connection> connection,
                    std::shared_ptr<ClientSession> session);
  void EndSession(const ClientSession& session);
  // Ends all connections, and returns when nothing is asked of the core any more. Idempotent; not
  // beside Take.
  void Stop();
  size_t connections() const;

 private:
  void Serve(store::Connection& connection, const std::shared_ptr<ClientSession>& session);

  ServiceState& state_;
  mutable std::mutex mutex_;
  bool stopping_ = false;
  absl::flat_hash_map<const ClientSession*, std::shared_ptr<store::Connection>> connections_;
  std::unique_ptr<WorkerPool> threads_ = std::make_unique<WorkerPool>(
      WorkerPool::Options{.threads_max = kLookupConnectionsMax, .queue_max = 0});
};

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_SERVICE_LOOKUP_SERVER_H_
