// fetch_stream.h: the bytes of a prefix, slice after slice, out of the arena as they lie there: the
// transport reads them in place, and nothing is serialised but the few bytes of framing before
// each. On the wire it is what cache.proto says. The lease is held while the stream or any slice of
// it in the transport lives, no longer.
//
// Threads:   the fetch on the bulk pool, slices on gRPC threads.
// Ownership: owns itself from the moment it is returned to gRPC.
#ifndef CAIRN_CACHE_SERVICE_FETCH_STREAM_H_
#define CAIRN_CACHE_SERVICE_FETCH_STREAM_H_

#include <grpcpp/grpcpp.h>

#include <memory>
#include <mutex>
#include <optional>

#include "cache/service/leased_bytes.h"
#include "cache/service/service_state.h"
#include "cairn/v1/cache.pb.h"

namespace cairn::cache {

// The head of a stream.
void EncodeFetched(const LeasedBytes& bytes, v1::FetchResponse* out);

// A stream without a near deadline could hold its lease or its memory for ever.
absl::Status CheckStreamDeadline(const grpc::CallbackServerContext& context);

class FetchStream final : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
 public:
  // `request`: a serialised v1::FetchRequest.
  FetchStream(ServiceState& state, grpc::CallbackServerContext* context,
              const grpc::ByteBuffer* request);

  void OnWriteDone(bool ok) override;
  void OnDone() override;

 private:
  ~FetchStream() override = default;
  absl::Status Begin(const v1::FetchRequest& request);
  bool FillSliceLocked();

  ServiceState& state_;
  const WorkGauge::Token held_;
  v1::FetchRequest request_;
  std::mutex mutex_;
  std::shared_ptr<const LeasedBytes> bytes_;
  std::optional<TransferCursor> cursor_;  // of the next byte
  grpc::ByteBuffer chunk_;
};

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_SERVICE_FETCH_STREAM_H_
