// lying_daemon.h: a daemon's gRPC service that asks the real one and passes its answers on, but for
// what a Liar changes.
//
// Threads:   gRPC's. Ownership: the liar outlives it; the destructor ends its calls.
// Errors:    the real daemon's, passed on.
#ifndef CAIRN_TESTS_LIES_LYING_DAEMON_H_
#define CAIRN_TESTS_LIES_LYING_DAEMON_H_

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "cairn/v1/cache.grpc.pb.h"
#include "tests/lies/liar.h"

namespace cairn::lies {

class LyingDaemon final : public v1::Cache::Service {
 public:
  // `listen`: "unix:/path" or "host:port" with port 0 for any.
  LyingDaemon(const std::string& listen, const std::string& real, Liar& liar);
  ~LyingDaemon() override;
  int port() const { return port_; }

  grpc::Status Session(grpc::ServerContext*, const v1::SessionRequest*,
                       grpc::ServerWriter<v1::SessionEvent>*) override;
  grpc::Status Match(grpc::ServerContext*, const v1::MatchRequest*, v1::MatchResponse*) override;
  grpc::Status Fetch(grpc::ServerContext*, const v1::FetchRequest*, v1::MappedPrefix*) override;
  grpc::Status FetchStream(grpc::ServerContext*, const v1::FetchRequest*,
                           grpc::ServerWriter<v1::FetchChunk>*) override;
  grpc::Status FetchBulk(grpc::ServerContext*, const v1::FetchRequest*, v1::BulkResponse*) override;
  grpc::Status Reserve(grpc::ServerContext*, const v1::ReserveRequest*,
                       v1::ReserveResponse*) override;
  grpc::Status Commit(grpc::ServerContext*, const v1::CommitRequest*, v1::CommitResponse*) override;
  grpc::Status CommitStream(grpc::ServerContext*, grpc::ServerReader<v1::CommitChunk>*,
                            v1::CommitResponse*) override;
  grpc::Status Abort(grpc::ServerContext*, const v1::AbortRequest*, v1::AbortResponse*) override;
  grpc::Status Release(grpc::ServerContext*, const v1::ReleaseRequest*,
                       v1::ReleaseResponse*) override;

 private:
  template <typename Request, typename Response>
  grpc::Status Unary(const std::string& name,
                     grpc::Status (v1::Cache::Stub::*method)(grpc::ClientContext*, const Request&,
                                                             Response*),
                     grpc::ServerContext* context, const Request& request, Response* response);
  template <typename Event>
  grpc::Status Stream(const std::string& name, grpc::ClientReader<Event>& from,
                      grpc::ServerWriter<Event>& to);

  Liar& liar_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::Cache::Stub> real_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace cairn::lies

#endif  // CAIRN_TESTS_LIES_LYING_DAEMON_H_
