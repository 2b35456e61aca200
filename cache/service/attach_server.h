// attach_server.h: the daemon's side of attach_protocol.h: gives the arena, and the pool in GPU
// memory if there is one, to clients of open sessions on this host, takes their staging memory, and
// hands connections for look-ups on.
//
// Threads:   one accepts, few answer. Shutdown from any thread.
// Ownership: core, sessions, lookups and the door outlive it. A piece belongs to its session.
// Errors:    answered to the client; a connection that says nothing is closed after a second.
#ifndef CAIRN_CACHE_SERVICE_ATTACH_SERVER_H_
#define CAIRN_CACHE_SERVICE_ATTACH_SERVER_H_

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "cache/core/cache_core.h"
#include "cache/service/lookup_server.h"
#include "cache/service/session_table.h"
#include "cache/service/worker_pool.h"
#include "store/device/socket.h"

namespace cairn::cache {

class AttachServer {
 public:
  // FAILED_PRECONDITION: a live daemon listens there. `lookups` null: all is looked up by gRPC.
  static absl::StatusOr<std::unique_ptr<AttachServer>> Start(const std::string& path,
                                                             store::SocketDoor& door,
                                                             CacheCore& core,
                                                             SessionTable& sessions,
                                                             LookupServer* lookups = nullptr);
  ~AttachServer();

 private:
  AttachServer(std::unique_ptr<store::Listener> listener, CacheCore& core, SessionTable& sessions,
               LookupServer* lookups);
  void AcceptLoop();
  void Serve(const std::shared_ptr<store::Connection>& connection);

  CacheCore& core_;
  SessionTable& sessions_;
  LookupServer* const lookups_;
  std::unique_ptr<store::Listener> listener_;
  std::mutex mutex_;
  std::condition_variable stop_;
  bool stopping_ = false;
  WorkerPool answering_;
  std::thread accepting_;
};

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_SERVICE_ATTACH_SERVER_H_
