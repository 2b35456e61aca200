#include "cache/service/cache_service.h"

#include <utility>

#include "cache/client/protocol.h"
#include "cache/service/bulk_server.h"
#include "cache/service/commit_stream.h"
#include "cache/service/fetch_stream.h"
#include "cache/service/match_answer.h"
#include "cache/service/session_stream.h"
#include "cache/service/unary_call.h"
#include "cache/service/validate.h"

namespace cairn::cache {
namespace {

using Undo = UnaryCall::Undo;

// Index look-ups beyond this many are kept off gRPC's few threads.
constexpr size_t kItemsHereMax = 16'384;

bool Maps(const ServiceState& state, const ClientSession& session) {
  return session.same_host() && !state.attach_socket.empty();
}

absl::Status DoMatch(ServiceState& state, const v1::MatchRequest& request, v1::MatchResponse* out,
                     Undo* undo) {
  CAIRN_ASSIGN_OR_RETURN(const auto session, state.sessions.Find(request.token()));
  CAIRN_ASSIGN_OR_RETURN(const std::vector<Digest> chain, DecodeChain(request.chain()));
  const bool lease = request.lease_host() && Maps(state, *session);
  return AnswerMatch(state, session, chain, lease ? std::optional(request.lease()) : std::nullopt,
                     out, undo);
}

absl::Status DoFetch(ServiceState& state, const v1::FetchRequest& request, v1::MappedPrefix* out,
                     Undo* undo) {
  CAIRN_ASSIGN_OR_RETURN(const auto session, state.sessions.Find(request.token()));
  if (!Maps(state, *session)) {
    return absl::FailedPreconditionError("fetch: this session maps nothing; use FetchStream");
  }
  CAIRN_ASSIGN_OR_RETURN(const DecodedFetch fetch, DecodeFetch(request));
  CAIRN_ASSIGN_OR_RETURN(const LeasedPrefix prefix,
                         state.core.Fetch(session->core_id(), fetch.AsRequest()));
  EncodeMapped(prefix, out);
  *undo = ReleaseOf(state, session, prefix.lease);
  return absl::OkStatus();
}

// The bytes wait for whoever shows the ticket; the lease falls with the transfer or the ticket.
absl::Status DoFetchBulk(ServiceState& state, const v1::FetchRequest& request,
                         v1::BulkResponse* out, Undo* undo) {
  CAIRN_ASSIGN_OR_RETURN(const auto session, state.sessions.Find(request.token()));
  if (state.bulk_port == nullptr) {
    return absl::FailedPreconditionError("fetch_bulk: this daemon has no bulk port");
  }
  CAIRN_ASSIGN_OR_RETURN(DecodedFetch fetch, DecodeFetch(request));
  CAIRN_ASSIGN_OR_RETURN(LeasedPrefix prefix,
                         state.core.Fetch(session->core_id(), fetch.AsRequest()));
  const auto bytes = std::make_shared<const LeasedBytes>(state, session, std::move(prefix),
                                                         std::move(fetch.groups));
  EncodeFetched(*bytes, out->mutable_head());
  if (bytes->bytes() == 0) return absl::OkStatus();
  BulkTickets* const tickets = &state.bulk_port->tickets();
  const size_t stripes = state.bulk_port->StripesOf(*bytes, request.streams());
  CAIRN_ASSIGN_OR_RETURN(std::vector<std::string> issued,
                         tickets->Issue(bytes, stripes, fetch.deadline));
  out->set_ticket(issued[0]);
  for (size_t i = 1; i < stripes; ++i) out->add_more_tickets(issued[i]);
  *undo = [tickets, issued = std::move(issued)] { tickets->Revoke(issued); };
  return absl::OkStatus();
}

absl::Status DoReserve(ServiceState& state, const v1::ReserveRequest& request, bool may_wait,
                       v1::ReserveResponse* out, Undo* undo) {
  CAIRN_ASSIGN_OR_RETURN(const auto session, state.sessions.Find(request.token()));
  CAIRN_ASSIGN_OR_RETURN(const DecodedReserve reserve, DecodeReserve(request));
  CAIRN_ASSIGN_OR_RETURN(const std::vector<ReserveResult> results,
                         state.core.Reserve(session->core_id(), reserve.items,
                                            may_wait ? reserve.wait : absl::ZeroDuration()));
  std::vector<uint64_t> given;
  for (const ReserveResult& result : results) {
    v1::ReserveResult* to = out->add_results();
    to->set_state(static_cast<uint32_t>(result.state));
    to->set_reservation(result.reservation);
    if (result.state == ReserveState::kGo) given.push_back(result.reservation);
  }
  if (!given.empty()) {
    *undo = [&state, session, given = std::move(given)] {
      state.core.Abort(session->core_id(), given).IgnoreError();
    };
  }
  return absl::OkStatus();
}

absl::Status DoCommit(ServiceState& state, const v1::CommitRequest& request,
                      v1::CommitResponse* out) {
  CAIRN_ASSIGN_OR_RETURN(const auto session, state.sessions.Find(request.token()));
  CAIRN_ASSIGN_OR_RETURN(std::vector<DecodedCommitItem> decoded, DecodeCommit(request));
  std::vector<CoreCommitItem> items;
  items.reserve(decoded.size());
  for (DecodedCommitItem& item : decoded) {
    CAIRN_ASSIGN_OR_RETURN(
        const std::span<const uint8_t> payload,
        session->StagingRange(item.staging, item.staging_offset, item.payload_bytes));
    items.push_back({item.reservation, payload, std::move(item.parts)});
  }
  CAIRN_ASSIGN_OR_RETURN(const std::vector<absl::Status> statuses,
                         state.core.Commit(session->core_id(), items, request.durable()));
  EncodeCommitted(statuses, out);
  return absl::OkStatus();
}

absl::Status DoAbort(ServiceState& state, const v1::AbortRequest& request) {
  CAIRN_ASSIGN_OR_RETURN(const auto session, state.sessions.Find(request.token()));
  CAIRN_RETURN_IF_ERROR(ValidateAbort(request));
  const std::vector<uint64_t> ids(request.reservations().begin(), request.reservations().end());
  return state.core.Abort(session->core_id(), ids);
}

absl::Status DoRelease(ServiceState& state, const v1::ReleaseRequest& request) {
  CAIRN_ASSIGN_OR_RETURN(const auto session, state.sessions.Find(request.token()));
  CAIRN_RETURN_IF_ERROR(ValidateRelease(request));
  absl::Status first;
  for (const uint64_t lease : request.leases()) {
    first.Update(state.core.Release(session->core_id(), lease));
  }
  return first;
}

absl::Status DoStats(ServiceState& state, const v1::StatsRequest& request, v1::StatsResponse* out) {
  CAIRN_RETURN_IF_ERROR(state.sessions.Find(request.token()).status());
  for (const NamedCount& count : state.Stats()) {
    v1::NamedCount* to = out->add_counts();
    to->set_name(count.name);
    to->set_value(count.value);
  }
  return absl::OkStatus();
}

}  // namespace

grpc::ServerWriteReactor<v1::SessionEvent>* CacheService::Session(
    grpc::CallbackServerContext* context, const v1::SessionRequest* request) {
  return new SessionStream(state_, context, request);
}

grpc::ServerUnaryReactor* CacheService::Match(grpc::CallbackServerContext* context,
                                              const v1::MatchRequest* request,
                                              v1::MatchResponse* out) {
  auto* call = new UnaryCall(state_, context);
  const auto body = [=, this](Undo* undo) { return DoMatch(state_, *request, out, undo); };
  return request->chain().size() / Digest::kBytes <= kItemsHereMax
             ? call->RunHere(body)
             : call->StartOrRefuse(state_.quick, body);
}

grpc::ServerUnaryReactor* CacheService::Fetch(grpc::CallbackServerContext* context,
                                              const v1::FetchRequest* request,
                                              v1::MappedPrefix* out) {
  return (new UnaryCall(state_, context))
      ->StartOrRefuse(state_.bulk, [=, this, held = state_.work.Hold()](Undo* undo) {
        return DoFetch(state_, *request, out, undo);
      });
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* CacheService::FetchStream(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request) {
  return new cache::FetchStream(state_, context, request);
}

grpc::ServerUnaryReactor* CacheService::FetchBulk(grpc::CallbackServerContext* context,
                                                  const v1::FetchRequest* request,
                                                  v1::BulkResponse* out) {
  return (new UnaryCall(state_, context))
      ->StartOrRefuse(state_.bulk, [=, this, held = state_.work.Hold()](Undo* undo) {
        return DoFetchBulk(state_, *request, out, undo);
      });
}

grpc::ServerUnaryReactor* CacheService::Reserve(grpc::CallbackServerContext* context,
                                                const v1::ReserveRequest* request,
                                                v1::ReserveResponse* out) {
  auto* call = new UnaryCall(state_, context);
  const auto waiting = [=, this](Undo* undo) {
    return DoReserve(state_, *request, true, out, undo);
  };
  if (request->wait_millis() > 0 && !call->TryStart(state_.waiters, waiting).has_value()) {
    return call;
  }
  // With too many waiting already, the answer is what it would be after the wait: kWait.
  return call->RunHere(
      [=, this](Undo* undo) { return DoReserve(state_, *request, false, out, undo); });
}

grpc::ServerUnaryReactor* CacheService::Commit(grpc::CallbackServerContext* context,
                                               const v1::CommitRequest* request,
                                               v1::CommitResponse* out) {
  return (new UnaryCall(state_, context))
      ->StartOrRefuse(state_.bulk, [=, this, held = state_.work.Hold()](Undo*) {
        return DoCommit(state_, *request, out);
      });
}

grpc::ServerReadReactor<v1::CommitChunk>* CacheService::CommitStream(
    grpc::CallbackServerContext* context, v1::CommitResponse* out) {
  return new cache::CommitStream(state_, context, out);
}

grpc::ServerUnaryReactor* CacheService::Abort(grpc::CallbackServerContext* context,
                                              const v1::AbortRequest* request, v1::AbortResponse*) {
  return (new UnaryCall(state_, context))->RunHere([=, this](Undo*) {
    return DoAbort(state_, *request);
  });
}

grpc::ServerUnaryReactor* CacheService::Release(grpc::CallbackServerContext* context,
                                                const v1::ReleaseRequest* request,
                                                v1::ReleaseResponse*) {
  return (new UnaryCall(state_, context))->RunHere([=, this](Undo*) {
    return DoRelease(state_, *request);
  });
}

grpc::ServerUnaryReactor* CacheService::Stats(grpc::CallbackServerContext* context,
                                              const v1::StatsRequest* request,
                                              v1::StatsResponse* out) {
  return (new UnaryCall(state_, context))->StartOrRefuse(state_.quick, [=, this](Undo*) {
    return DoStats(state_, *request, out);
  });
}

}  // namespace cairn::cache
