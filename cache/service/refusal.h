// refusal.h: how the daemon says no when it has too much to do: at once, before it has done
// anything for the call, and with when to come again: in the message for people, in the trailing
// metadata kPushbackKey for programs (the pushback of gRPC's retry design A6, in milliseconds,
// which gRPC's own retries obey).
//
// Threads: any, while the call is open.
// Errors:  RESOURCE_EXHAUSTED is what a refusal is; the caller may also go on without the cache.
#ifndef CAIRN_CACHE_SERVICE_REFUSAL_H_
#define CAIRN_CACHE_SERVICE_REFUSAL_H_

#include <grpcpp/grpcpp.h>

#include <string>

#include "absl/time/time.h"
#include "cache/service/service_state.h"

namespace cairn::cache {

inline constexpr char kPushbackKey[] = "grpc-retry-pushback-ms";

// How long a call may wait for a thread: half of what its caller still gives it, so that the other
// half is left for the work. Infinite without a deadline.
absl::Duration PatienceOf(const grpc::CallbackServerContext& context);

// Counts the refusal. `what` is busy: "the daemon", say.
absl::Status Refuse(ServiceState& state, const std::string& what, absl::Duration come_again);

// What ends a call with that status; counts it, and says when to come again if the status does
// (store/base/come_again.h).
grpc::Status EndOfCall(ServiceState& state, grpc::CallbackServerContext& context,
                       const absl::Status& status);

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_SERVICE_REFUSAL_H_
