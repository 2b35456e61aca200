// lookup_lane.h: matches by a connection of their own to the daemon of this host
// (attach_protocol.h), at a fraction of what a gRPC call costs.
//
// Threads:   any; one at a time is served, others are told to go another way.
//            Who is served looks for its answer for 50 us, yielding, before it sleeps.
// Ownership: the connection is this one's.
// Errors:    DEADLINE_EXCEEDED after `timeout`, and UNAVAILABLE when the daemon closed the lane
//            before it answered: what was leased is the caller's to release. UNAVAILABLE "the
//            daemon's answer is wrong: ...". Else the daemon's.
#ifndef CAIRN_CACHE_CLIENT_LOOKUP_LANE_H_
#define CAIRN_CACHE_CLIENT_LOOKUP_LANE_H_

#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "absl/time/time.h"
#include "cairn/v1/cache.pb.h"
#include "store/base/digest.h"
#include "store/device/socket.h"

namespace cairn::cache {

class LookupLane {
 public:
  explicit LookupLane(std::unique_ptr<store::Connection> connection)
      : connection_(std::move(connection)) {}

  // `lease`: what is in host memory is to be leased under this number. Nothing: it was not asked,
  // as the lane is in use, or closed, or the chain too long for it.
  std::optional<absl::Status> Match(std::span<const Digest> chain, std::optional<uint64_t> lease,
                                    v1::MatchResponse* answer, absl::Duration timeout);

 private:
  std::optional<absl::Status> Ask(std::span<const Digest> chain, std::optional<uint64_t> lease,
                                  v1::MatchResponse* answer, absl::Duration timeout);

  std::mutex mutex_;
  std::unique_ptr<store::Connection> connection_;  // null: it was closed
  uint32_t number_ = 0;                            // of the last request
  std::vector<uint8_t> request_;                   // kept, so that it is not taken each time
};

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_CLIENT_LOOKUP_LANE_H_
