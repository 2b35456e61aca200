// commit_call.h: a CommitStream in flight, as its client sees it. Not the generated stub's: that
// one parses the answer within gRPC, whose ClientWriter::Finish (sync_stream.h) asserts that it
// parses and ends the process where it does not.
//
// Threads:   one.
// Ownership: channel and context outlive it.
// Errors:    Finish: the call's end, in gRPC's words. Answer: UNAVAILABLE "the daemon's answer is
//            wrong: ...": no CommitResponse at all.
#ifndef CAIRN_CACHE_CLIENT_COMMIT_CALL_H_
#define CAIRN_CACHE_CLIENT_COMMIT_CALL_H_

#include <grpcpp/grpcpp.h>

#include <memory>

#include "cairn/v1/cache.grpc.pb.h"
#include "store/base/status.h"

namespace cairn::cache {

class CommitCall {
 public:
  CommitCall(grpc::ChannelInterface& channel, grpc::ClientContext* context);

  // False: the stream is closed; Finish has the reason.
  bool Write(const v1::CommitChunk& chunk) { return writer_->Write(chunk); }
  // Once, after which nothing is written.
  grpc::Status Finish();
  // REQUIRES: Finish returned OK.
  absl::StatusOr<v1::CommitResponse> Answer();

 private:
  grpc::ByteBuffer answer_;  // before its writer, which fills it
  const std::unique_ptr<grpc::ClientWriter<v1::CommitChunk>> writer_;
};

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_CLIENT_COMMIT_CALL_H_
