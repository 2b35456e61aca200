#include "cache/service/attach_server.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "cache/client/attach_protocol.h"

namespace cairn::cache {
namespace {

constexpr absl::Duration kAttachTimeout = absl::Seconds(1);
constexpr std::chrono::milliseconds kAcceptPause(50);

struct Outcome {
  int descriptor = -1;  // lent, or the GPU pool's
  store::GpuExport gpu = {};
  uint32_t staging = 0;
  uint64_t bytes = 0;
};

absl::StatusOr<Outcome> Handle(store::SocketMessage message,
                               const std::shared_ptr<store::Connection>& connection,
                               CacheCore& core, SessionTable& sessions, LookupServer* lookups) {
  AttachRequest request;
  if (message.bytes.size() != sizeof(request)) {
    return absl::InvalidArgumentError(absl::StrCat("attach: ", message.bytes.size(),
                                                   " bytes, must be exactly ", sizeof(request)));
  }
  std::memcpy(&request, message.bytes.data(), sizeof(request));
  if (request.magic != kAttachMagic || request.version != kAttachVersion) {
    return absl::FailedPreconditionError(absl::StrCat(
        "attach: version ", request.version, " is not this daemon's, which is ", kAttachVersion));
  }
  const std::string token(reinterpret_cast<const char*>(request.token.data()),
                          request.token.size());
  CAIRN_ASSIGN_OR_RETURN(const std::shared_ptr<ClientSession> session, sessions.Find(token));
  switch (static_cast<AttachKind>(request.kind)) {
    case AttachKind::kArena:
      return Outcome{.descriptor = core.arena_fd(), .bytes = core.arena_bytes()};
    case AttachKind::kStaging: {
      if (!message.descriptor.valid()) {
        return absl::InvalidArgumentError("attach: staging without a descriptor");
      }
      CAIRN_RETURN_IF_ERROR(session->CheckStagingRoom(request.bytes));
      CAIRN_ASSIGN_OR_RETURN(
          store::SharedMemory memory,
          store::SharedMemory::MapReadOnly(std::move(message.descriptor), request.bytes));
      Outcome outcome{.bytes = request.bytes};
      CAIRN_ASSIGN_OR_RETURN(outcome.staging, session->AddStaging(std::move(memory)));
      return outcome;
    }
    case AttachKind::kGpuPool: {
      Outcome outcome;
      CAIRN_ASSIGN_OR_RETURN(outcome.gpu, core.AttachGpu(session->core_id()));
      outcome.descriptor = outcome.gpu.descriptor.get();
      outcome.bytes = outcome.gpu.bytes;
      return outcome;
    }
    case AttachKind::kLookups: {
      if (lookups == nullptr) return absl::FailedPreconditionError("attach: look up by gRPC");
      CAIRN_RETURN_IF_ERROR(lookups->Take(connection, session));
      return Outcome{};
    }
  }
  return absl::InvalidArgumentError(
      absl::StrCat("attach: kind ", request.kind,
                   " is neither arena (1), staging (2), GPU pool (3) nor look-ups (4)"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<AttachServer>> AttachServer::Start(const std::string& path,
                                                                  store::SocketDoor& door,
                                                                  CacheCore& core,
                                                                  SessionTable& sessions,
                                                                  LookupServer* lookups) {
  CAIRN_ASSIGN_OR_RETURN(std::unique_ptr<store::Listener> listener, door.Listen(path));
  return std::unique_ptr<AttachServer>(
      new AttachServer(std::move(listener), core, sessions, lookups));
}

AttachServer::AttachServer(std::unique_ptr<store::Listener> listener, CacheCore& core,
                           SessionTable& sessions, LookupServer* lookups)
    : core_(core),
      sessions_(sessions),
      lookups_(lookups),
      listener_(std::move(listener)),
      answering_({.threads_max = 4, .queue_max = 64}),
      accepting_([this] { AcceptLoop(); }) {}

AttachServer::~AttachServer() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  stop_.notify_all();
  listener_->Shutdown();
  accepting_.join();
}

void AttachServer::AcceptLoop() {
  while (true) {
    absl::StatusOr<std::unique_ptr<store::Connection>> connection = listener_->Accept();
    if (!connection.ok()) {
      // Shut down, or out of descriptors: then it waits a little for some to come back.
      std::unique_lock<std::mutex> lock(mutex_);
      if (stop_.wait_for(lock, kAcceptPause, [this] { return stopping_; })) return;
      continue;
    }
    const std::shared_ptr<store::Connection> shared = *std::move(connection);
    // Refused when too many are waiting: the connection closes, and the client goes on by streams.
    if (answering_.TryRun([this, shared] { Serve(shared); }).has_value()) continue;
  }
}

void AttachServer::Serve(const std::shared_ptr<store::Connection>& connection) {
  absl::StatusOr<store::SocketMessage> message =
      connection->Receive(sizeof(AttachRequest), kAttachTimeout);
  absl::StatusOr<Outcome> outcome =
      message.ok() ? Handle(*std::move(message), connection, core_, sessions_, lookups_)
                   : message.status();
  AttachAnswer answer;
  int descriptor = -1;
  if (outcome.ok()) {
    answer.staging = outcome->staging;
    answer.bytes = outcome->bytes;
    answer.gpu_handle = outcome->gpu.handle;
    descriptor = outcome->descriptor;
  } else {
    answer.code = static_cast<uint32_t>(outcome.status().code());
    const std::string text(outcome.status().message());
    std::memcpy(answer.message.data(), text.data(), std::min(text.size(), answer.message.size()));
  }
  std::vector<uint8_t> raw(sizeof(answer));
  std::memcpy(raw.data(), &answer, sizeof(answer));
  // A client that is gone does not need the answer.
  connection->Send(raw, descriptor, kAttachTimeout).IgnoreError();
}

}  // namespace cairn::cache
