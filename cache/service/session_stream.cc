#include "cache/service/session_stream.h"

#include <spdlog/spdlog.h>

#include "absl/strings/match.h"
#include "cache/client/protocol.h"
#include "cache/service/bulk_server.h"
#include "cache/service/lookup_server.h"
#include "cache/service/refusal.h"
#include "cache/service/validate.h"

namespace cairn::cache {
namespace {

absl::Status Stopping() { return absl::UnavailableError("the daemon is stopping"); }

}  // namespace

SessionStream::SessionStream(ServiceState& state, grpc::CallbackServerContext* context,
                             const v1::SessionRequest* request)
    : state_(state), context_(*context) {
  state_.streams.Add(this);
  const bool same_host = absl::StartsWith(context->peer(), "unix:");
  const auto open = [this, request, same_host] {
    const absl::Status status = Open(*request, same_host);
    if (!status.ok()) {
      spdlog::warn("session refused: {}", std::string(status.message()));
      End(status);
      return;
    }
    bool cancelled = false;
    bool stopped = false;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      opened_ = true;
      cancelled = cancelled_;
      stopped = stopped_;
    }
    if (cancelled || stopped) {
      End(stopped ? Stopping() : absl::CancelledError());
    } else {
      StartWrite(&event_);
    }
  };
  if (const auto busy_for = state_.quick.TryRun(open); busy_for.has_value()) {
    End(Refuse(state_, "the daemon", *busy_for));
  }
}

absl::Status SessionStream::Open(const v1::SessionRequest& request, bool same_host) {
  CAIRN_ASSIGN_OR_RETURN(const NamespaceSpec spec, DecodeSession(request));
  Registration registration;
  CAIRN_ASSIGN_OR_RETURN(const SessionId id, state_.core.OpenSession(spec, &registration));
  std::shared_ptr<ClientSession> session = state_.sessions.Add(id, same_host);
  v1::Registration* out = event_.mutable_registration();
  out->set_protocol_version(kProtocolVersion);
  out->set_layout_version(kLayoutVersion);
  out->set_daemon_version(state_.daemon_version);
  out->set_token(session->token());
  out->set_root(EncodeDigest(registration.root));
  out->set_policy(registration.policy.ToString());
  if (same_host && !state_.attach_socket.empty()) {
    out->set_attach_socket(state_.attach_socket);
    out->set_arena_bytes(state_.core.arena_bytes());
    out->set_gpu_bytes(state_.core.gpu_bytes());
  }
  if (!same_host && state_.bulk_port != nullptr) out->set_bulk_port(state_.bulk_port->port());
  std::lock_guard<std::mutex> lock(mutex_);
  session_ = std::move(session);
  return absl::OkStatus();
}

void SessionStream::OnWriteDone(bool ok) {
  if (!ok) End(absl::CancelledError());
}

void SessionStream::OnCancel() {
  bool opened = false;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    cancelled_ = true;
    opened = opened_;
  }
  // Before that, whoever opens it sees the cancellation.
  if (opened) End(absl::CancelledError());
}

void SessionStream::EndForStop() {
  bool opened = false;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopped_ = true;
    opened = opened_;
  }
  if (opened) End(Stopping());
}

void SessionStream::End(const absl::Status& status) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (ended_) return;
    ended_ = true;
  }
  Finish(EndOfCall(state_, context_, status));
}

void SessionStream::OnDone() {
  state_.streams.Remove(this);
  std::shared_ptr<ClientSession> session;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    session = std::move(session_);
  }
  if (session != nullptr) {
    state_.quick.Run([&state = state_, session] {
      state.sessions.Remove(session->token());
      state.lookups->EndSession(*session);
      if (state.bulk_port != nullptr) state.bulk_port->EndSession(*session);
      state.core.CloseSession(session->core_id());
    });
  }
  delete this;
}

}  // namespace cairn::cache
