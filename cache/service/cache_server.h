// cache_server.h: the sockets of a daemon: the cache on a Unix socket and perhaps on TCP, its .fd
// companion, the bulk port, and the admin socket. Makes, bounds and ends them.
//
// Threads:   gRPC's own, at most kServerThreadsMax, and the pools of service_state.h.
// Ownership: core, clock, random and door outlive it. The destructor ends all calls and sessions.
// Errors:    INVALID_ARGUMENT: what is wrong with the credentials.
//            FAILED_PRECONDITION: another process listens there (it is left alone), or the place is
// not to be had. A socket file
//            that a dead process left is replaced.
#ifndef CAIRN_CACHE_SERVICE_CACHE_SERVER_H_
#define CAIRN_CACHE_SERVICE_CACHE_SERVER_H_

#include <grpcpp/grpcpp.h>

#include <memory>
#include <optional>
#include <string>

#include "absl/time/time.h"
#include "cache/core/cache_core.h"
#include "cache/service/admin_service.h"
#include "cache/service/attach_server.h"
#include "cache/service/bulk_server.h"
#include "cache/service/cache_service.h"
#include "cache/service/service_state.h"
#include "store/base/clock.h"
#include "store/base/random.h"
#include "store/device/socket.h"
#include "store/device/tls_stream.h"

namespace cairn::cache {

struct CacheServerOptions {
  std::string socket;        // path; required
  std::string listen;        // "host:port" (port 0: any); empty: no TCP
  std::string admin_socket;  // path; empty: no admin service
  std::string bulk_listen;   // "host:port" (port 0: any); empty: no bulk port
  std::string version;
  uint64_t bulk_stripe_bytes_min = kBulkStripeBytesMin;
  // Of both ports, `listen` and `bulk_listen`; unset: in the clear. Clients show a certificate of
  // its authorities if it has any. Unix sockets are the file system's to guard.
  std::optional<store::TlsCredentials> tls = {};
};

class CacheServer {
 public:
  static absl::StatusOr<std::unique_ptr<CacheServer>> Start(const CacheServerOptions& options,
                                                            CacheCore& core, Clock& clock,
                                                            Random& random,
                                                            store::SocketDoor& door);
  ~CacheServer();

  // No new calls; fetches and commits in flight have until the deadline, then sessions end, and
  // with them whoever waits. Without such work it is over at once. Idempotent.
  void Shutdown(absl::Duration deadline);

  int tcp_port() const { return tcp_port_; }  // 0: none
  int bulk_port() const { return state_.bulk_port == nullptr ? 0 : state_.bulk_port->port(); }
  ServiceState& state() { return state_; }

 private:
  CacheServer(const CacheServerOptions& options, CacheCore& core, Clock& clock, Random& random);
  absl::Status Listen(const CacheServerOptions& options, store::SocketDoor& door);
  absl::Status ListenForBulk(const CacheServerOptions& options);

  ServiceState state_;
  CacheService cache_;
  AdminService admin_;
  Clock& clock_;
  Random& random_;
  std::unique_ptr<AttachServer> attach_;
  std::unique_ptr<grpc::Server> cache_server_;
  std::unique_ptr<grpc::Server> admin_server_;
  int tcp_port_ = 0;
};

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_SERVICE_CACHE_SERVER_H_
