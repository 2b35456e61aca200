// admin_client.h: the operator's calls to a daemon's admin socket, each with a deadline.
//
// Threads: one caller. Units: as in proto/cairn/v1/admin.proto.
// Errors:  UNAVAILABLE or DEADLINE_EXCEEDED: no daemon answers. NOT_FOUND: nothing matched. Others
// carry the daemon's message.
#ifndef CAIRN_TOOLS_CAIRNCTL_ADMIN_CLIENT_H_
#define CAIRN_TOOLS_CAIRNCTL_ADMIN_CLIENT_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/time/time.h"
#include "cairn/v1/admin.grpc.pb.h"
#include "store/base/status.h"

namespace cairn::ctl {

class AdminClient {
 public:
  // `socket`: the path of the admin socket.
  AdminClient(const std::string& socket, absl::Duration timeout);

  absl::StatusOr<v1::VersionResponse> Version();
  absl::StatusOr<v1::StatsResponse> Stats();
  absl::StatusOr<v1::ListResponse> List(const v1::ListRequest& request);
  absl::StatusOr<v1::EvictResponse> Evict(const v1::EvictRequest& request);
  absl::StatusOr<v1::PinResponse> Pin(const std::string& digest, bool pin);
  // Calls `progress` for each event but the last, which is returned. Without a deadline: at a low
  // rate it takes days, and a daemon that dies is noticed at once.
  absl::StatusOr<v1::VerifyEvent> Verify(
      const v1::VerifyRequest& request,
      const std::function<void(const v1::VerifyEvent&)>& progress);
  absl::Status Flush(absl::Duration deadline);

 private:
  std::unique_ptr<v1::Admin::Stub> stub_;
  absl::Duration timeout_;
};

// Bytes of a digest, or of the first 8 to 64 hexadecimal digits of one. INVALID_ARGUMENT otherwise.
absl::StatusOr<std::string> ParseDigestPrefix(const std::string& hex);

}  // namespace cairn::ctl

#endif  // CAIRN_TOOLS_CAIRNCTL_ADMIN_CLIENT_H_
