// session_stream.h: a session as its stream. It costs no thread while it is silent; when the stream
// ends, however, the session is closed and all that the client held is freed.
//
// Threads:   reactions on gRPC threads, opening and closing on the quick pool.
// Ownership: owns itself from the moment it is returned to gRPC.
#ifndef CAIRN_CACHE_SERVICE_SESSION_STREAM_H_
#define CAIRN_CACHE_SERVICE_SESSION_STREAM_H_

#include <grpcpp/grpcpp.h>

#include <memory>
#include <mutex>

#include "cache/service/service_state.h"
#include "cairn/v1/cache.pb.h"

namespace cairn::cache {

class SessionStream final : public grpc::ServerWriteReactor<v1::SessionEvent> {
 public:
  SessionStream(ServiceState& state, grpc::CallbackServerContext* context,
                const v1::SessionRequest* request);

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

  // The daemon stops: the client is told so.
  void EndForStop();

 private:
  ~SessionStream() override = default;
  absl::Status Open(const v1::SessionRequest& request, bool same_host);
  // Once: the first of an error and the client's end.
  void End(const absl::Status& status);

  ServiceState& state_;
  grpc::CallbackServerContext& context_;
  std::mutex mutex_;
  bool cancelled_ = false;
  bool opened_ = false;
  bool stopped_ = false;
  bool ended_ = false;
  std::shared_ptr<ClientSession> session_;
  v1::SessionEvent event_;
};

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_SERVICE_SESSION_STREAM_H_
