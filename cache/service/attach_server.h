// attach_server.h: the daemon's side of attach_protocol.h: gives the arena, and the pool in GPU
// memory if there is one, to clients of open sessions on this host, takes their staging memory.
//
// Threads:   one accepts, few answer. Shutdown from any thread.
// Ownership: core, sessions and the door outlive it. A piece belongs to its session.
// Errors:    answered to the client; a connection that says nothing is closed after a second.
#ifndef CAIRN_CACHE_SERVICE_ATTACH_SERVER_H_
#define CAIRN_CACHE_SERVICE_ATTACH_SERVER_H_

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "cache/core/cache_core.h"
#include "cache/service/session_table.h"
#include "cache/service/worker_pool.h"
#include "store/device/socket.h"

namespace cairn::cache {

class AttachServer {
 public:
  // FAILED_PRECONDITION: a live daemon listens there.
  static absl::StatusOr<std::unique_ptr<AttachServer>> Start(const std::string& path,
                                                             store::SocketDoor& door,
                                                             CacheCore& core,
                                                             SessionTable& sessions);
  ~AttachServer();

 private:
  AttachServer(std::unique_ptr<store::Listener> listener, CacheCore& core, SessionTable& sessions);
  void AcceptLoop();
  void Serve(store::Connection& connection);

  CacheCore& core_;
  SessionTable& sessions_;
  std::unique_ptr<store::Listener> listener_;
  std::mutex mutex_;
  std::condition_variable stop_;
  bool stopping_ = false;
  WorkerPool answering_;
  std::thread accepting_;
};

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_SERVICE_ATTACH_SERVER_H_
