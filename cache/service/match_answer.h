// match_answer.h: a match of a session's, and what is leased with it, in the protocol's words: what
// a gRPC call and a look-up (lookup_server.h) both answer.
//
// Threads: any. Errors: as CacheCore's.
#ifndef CAIRN_CACHE_SERVICE_MATCH_ANSWER_H_
#define CAIRN_CACHE_SERVICE_MATCH_ANSWER_H_

#include <functional>
#include <memory>
#include <optional>
#include <span>

#include "cache/service/service_state.h"
#include "cairn/v1/cache.pb.h"

namespace cairn::cache {

void EncodeMapped(const LeasedPrefix& prefix, v1::MappedPrefix* out);

// Gives the lease back: for an answer that reaches nobody.
std::function<void()> ReleaseOf(ServiceState& state, std::shared_ptr<ClientSession> session,
                                LeaseId lease);

// `lease`: what is in host memory is to be leased under this number. Sets `undo` if something was.
absl::Status AnswerMatch(ServiceState& state, const std::shared_ptr<ClientSession>& session,
                         std::span<const Digest> chain, std::optional<LeaseId> lease,
                         v1::MatchResponse* out, std::function<void()>* undo);

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_SERVICE_MATCH_ANSWER_H_
