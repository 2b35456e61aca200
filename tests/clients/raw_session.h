// raw_session.h: a session over TCP without our client library: one that can ask and then not take
// what it asked for.
//
// Threads: one. Ownership: the session ends with it. Errors: as gRPC's.
#ifndef CAIRN_TESTS_CLIENTS_RAW_SESSION_H_
#define CAIRN_TESTS_CLIENTS_RAW_SESSION_H_

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "absl/time/time.h"
#include "cairn/v1/cache.grpc.pb.h"
#include "store/base/digest.h"
#include "store/base/status.h"
#include "store/device/byte_stream.h"

namespace cairn::clients {

class RawSession {
 public:
  static absl::StatusOr<std::unique_ptr<RawSession>> Open(const std::string& target);
  ~RawSession();

  v1::Cache::Stub& stub() { return *stub_; }
  // For the whole of prefix `number`.
  v1::FetchRequest FetchOf(uint64_t number, size_t blocks, absl::Duration deadline) const;
  v1::ReleaseRequest ReleaseOf(uint64_t lease) const;
  // A connection to the bulk port that has shown its ticket. `host` is that of the target.
  absl::StatusOr<std::unique_ptr<store::ByteStream>> BeginBulk(uint64_t number,
                                                               absl::Duration deadline);

 private:
  RawSession() = default;

  std::string target_;
  std::unique_ptr<v1::Cache::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<v1::SessionEvent>> events_;
  v1::Registration registration_;
  Digest root_;
};

}  // namespace cairn::clients

#endif  // CAIRN_TESTS_CLIENTS_RAW_SESSION_H_
