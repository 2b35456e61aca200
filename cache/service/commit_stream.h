// commit_stream.h: entries that arrive as slices. Memory for them is claimed from a budget of all
// streams before it is taken, and used again by later ones.
//
// Threads:   slices on gRPC threads, the commit on the bulk pool.
// Ownership: owns itself from the moment it is returned to gRPC.
#ifndef CAIRN_CACHE_SERVICE_COMMIT_STREAM_H_
#define CAIRN_CACHE_SERVICE_COMMIT_STREAM_H_

#include <grpcpp/grpcpp.h>

#include <memory>
#include <mutex>
#include <vector>

#include "cache/service/service_state.h"
#include "cache/service/validate.h"
#include "cairn/v1/cache.pb.h"

namespace cairn::cache {

// The core's answer, item by item.
void EncodeCommitted(const std::vector<absl::Status>& statuses, v1::CommitResponse* out);

class CommitStream final : public grpc::ServerReadReactor<v1::CommitChunk> {
 public:
  CommitStream(ServiceState& state, grpc::CallbackServerContext* context, v1::CommitResponse* out);

  void OnReadDone(bool ok) override;
  void OnDone() override;

 private:
  ~CommitStream() override = default;
  absl::Status TakeHeadLocked();
  absl::Status TakeSliceLocked();
  absl::Status TakeChunk();
  absl::Status Commit();
  void End(const absl::Status& status);

  ServiceState& state_;
  grpc::CallbackServerContext& context_;
  const WorkGauge::Token held_;
  v1::CommitResponse* const out_;
  v1::CommitChunk chunk_;
  std::mutex mutex_;
  std::shared_ptr<ClientSession> session_;
  std::vector<DecodedCommitItem> items_;
  bool durable_ = false;
  ReceivePool::Buffer payloads_;  // of all items, one after another
  uint64_t payload_bytes_ = 0;    // claimed
  uint64_t received_ = 0;
};

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_SERVICE_COMMIT_STREAM_H_
