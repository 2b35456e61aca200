// admin_service.h: service cairn.v1.Admin over a CacheCore, for operators, on a socket of its own.
//
// Threads:   gRPC's synchronous API: operators are few, and their calls (verify, flush) are long.
// One verification at a time. Ownership: state and clock outlive it. Errors:    NOT_FOUND: no block
// has that digest. INVALID_ARGUMENT: bounds, or a digest's beginning that names several.
#ifndef CAIRN_CACHE_SERVICE_ADMIN_SERVICE_H_
#define CAIRN_CACHE_SERVICE_ADMIN_SERVICE_H_

#include <atomic>

#include "cache/service/service_state.h"
#include "cache/service/validate.h"
#include "cairn/v1/admin.grpc.pb.h"
#include "store/base/clock.h"

namespace cairn::cache {

class AdminService final : public v1::Admin::Service {
 public:
  AdminService(ServiceState& state, Clock& clock)
      : state_(state), clock_(clock), started_nanos_(clock.NowNanos()) {}

  grpc::Status Version(grpc::ServerContext*, const v1::VersionRequest*,
                       v1::VersionResponse* out) override;
  grpc::Status Stats(grpc::ServerContext*, const v1::AdminStatsRequest*,
                     v1::StatsResponse* out) override;
  grpc::Status List(grpc::ServerContext*, const v1::ListRequest* request,
                    v1::ListResponse* out) override;
  grpc::Status Evict(grpc::ServerContext*, const v1::EvictRequest* request,
                     v1::EvictResponse* out) override;
  grpc::Status Pin(grpc::ServerContext*, const v1::PinRequest* request,
                   v1::PinResponse* out) override;
  grpc::Status Unpin(grpc::ServerContext*, const v1::PinRequest* request,
                     v1::PinResponse* out) override;
  grpc::Status Verify(grpc::ServerContext* context, const v1::VerifyRequest* request,
                      grpc::ServerWriter<v1::VerifyEvent>* writer) override;
  grpc::Status Flush(grpc::ServerContext*, const v1::FlushRequest* request,
                     v1::FlushResponse*) override;

  // The daemon stops: a verification, which may take hours, ends within a second or so.
  void EndVerification() { stopping_ = true; }

 private:
  // The one stored block whose digest begins so.
  absl::StatusOr<Digest> Resolve(const std::string& prefix);
  absl::StatusOr<ListFilter> Resolve(const DecodedFilter& filter);
  absl::Status SetPin(const v1::PinRequest& request, bool pin, v1::PinResponse* out);

  ServiceState& state_;
  Clock& clock_;
  const int64_t started_nanos_;
  std::atomic<bool> verifying_{false};
  std::atomic<bool> stopping_{false};
};

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_SERVICE_ADMIN_SERVICE_H_
