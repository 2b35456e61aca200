// unary_call.h: one unary call, run on a worker pool or where it came in. If the asker is gone
// before the answer reaches it, what the call gave out (a lease, a reservation) is taken back at
// once instead of at its deadline.
//
// Threads:   made on a gRPC thread, runs there or on a pool's, is done on a gRPC thread.
// Ownership: owns itself from the moment it is returned to gRPC.
#ifndef CAIRN_CACHE_SERVICE_UNARY_CALL_H_
#define CAIRN_CACHE_SERVICE_UNARY_CALL_H_

#include <grpcpp/grpcpp.h>

#include <functional>
#include <mutex>
#include <optional>

#include "cache/service/service_state.h"

namespace cairn::cache {

class UnaryCall final : public grpc::ServerUnaryReactor {
 public:
  using Undo = std::function<void()>;
  // Fills the answer; may set what undoes it.
  using Body = std::function<absl::Status(Undo* undo)>;

  UnaryCall(ServiceState& state, grpc::CallbackServerContext* context)
      : state_(state), context_(context) {}

  // On the calling thread, gRPC's: only for what neither waits nor reads nor copies payloads. A
  // change of threads costs more than such work.
  UnaryCall* RunHere(const Body& body);
  // As WorkerPool::TryRun, with the call's patience (refusal.h).
  [[nodiscard]] std::optional<absl::Duration> TryStart(WorkerPool& pool, Body body);
  // TryStart, or the call is refused.
  UnaryCall* StartOrRefuse(WorkerPool& pool, Body body);

  void OnDone() override;

 private:
  ~UnaryCall() override = default;
  void Run(const Body& body);
  void End(const absl::Status& status);

  ServiceState& state_;
  grpc::CallbackServerContext* const context_;
  std::mutex mutex_;
  Undo undo_;
};

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_SERVICE_UNARY_CALL_H_
