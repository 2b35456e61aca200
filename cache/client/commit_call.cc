#include "cache/client/commit_call.h"

namespace cairn::cache {
namespace {

const grpc::internal::RpcMethod& Method() {
  static const grpc::internal::RpcMethod kMethod("/cairn.v1.Cache/CommitStream",
                                                 grpc::internal::RpcMethod::CLIENT_STREAMING);
  return kMethod;
}

}  // namespace

CommitCall::CommitCall(grpc::ChannelInterface& channel, grpc::ClientContext* context)
    : writer_(grpc::internal::ClientWriterFactory<v1::CommitChunk>::Create(&channel, Method(),
                                                                           context, &answer_)) {}

grpc::Status CommitCall::Finish() {
  writer_->WritesDone();
  return writer_->Finish();
}

absl::StatusOr<v1::CommitResponse> CommitCall::Answer() {
  v1::CommitResponse answer;
  // Takes the bytes. None: the peer sent no message.
  if (!answer_.Valid() ||
      !grpc::SerializationTraits<v1::CommitResponse>::Deserialize(&answer_, &answer).ok()) {
    return absl::UnavailableError("the daemon's answer is wrong: not a commit's");
  }
  return answer;
}

}  // namespace cairn::cache
