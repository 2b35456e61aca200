#include "cache/service/lookup_server.h"

#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "cache/client/attach_protocol.h"
#include "cache/client/protocol.h"
#include "cache/service/match_answer.h"
#include "cache/service/service_state.h"

namespace cairn::cache {
namespace {

struct Lookup {
  LookupRequest request;
  std::span<const Digest> chain;  // where it came
};

// Nothing: what came is no look-up.
std::optional<Lookup> Decode(std::span<const uint8_t> message) {
  Lookup lookup;
  if (message.size() < sizeof(lookup.request)) return std::nullopt;
  std::memcpy(&lookup.request, message.data(), sizeof(lookup.request));
  message = message.subspan(sizeof(lookup.request));
  if (message.size() % Digest::kBytes != 0) return std::nullopt;
  static_assert(sizeof(Digest) == Digest::kBytes && alignof(Digest) == 1);
  lookup.chain = {reinterpret_cast<const Digest*>(message.data()), message.size() / Digest::kBytes};
  return lookup;
}

std::vector<uint8_t> Encode(uint32_t number, const absl::Status& status,
                            const v1::MatchResponse& answer) {
  const LookupAnswer header{.number = number, .code = static_cast<uint32_t>(status.code())};
  const std::string text(status.message().substr(0, kErrorTextBytesMax));
  std::vector<uint8_t> message(sizeof(header) +
                               (status.ok() ? answer.ByteSizeLong() : text.size()));
  std::memcpy(message.data(), &header, sizeof(header));
  uint8_t* const body = message.data() + sizeof(header);
  if (status.ok()) {
    answer.SerializeWithCachedSizesToArray(body);
  } else {
    std::memcpy(body, text.data(), text.size());
  }
  return message;
}

absl::Status CheckBlocks(size_t blocks) {
  if (blocks <= kLookupBlocksMax) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "chain: ", blocks, " blocks, a look-up has at most ", kLookupBlocksMax, "; ask by gRPC"));
}

}  // namespace

absl::Status LookupServer::Take(std::shared_ptr<store::Connection> connection,
                                std::shared_ptr<ClientSession> session) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (stopping_) return absl::UnavailableError("the daemon is stopping");
    // Looked at under the lock, so that an end that comes later finds the connection.
    CAIRN_RETURN_IF_ERROR(state_.sessions.Find(session->token()).status());
    if (!connections_.emplace(session.get(), connection).second) {
      return absl::AlreadyExistsError("attach: this session looks up by another connection");
    }
  }
  const auto serve = [this, connection, session] {
    Serve(*connection, session);
    const std::lock_guard<std::mutex> lock(mutex_);
    connections_.erase(session.get());
  };
  if (!threads_->TryRun(serve).has_value()) {
    ++state_.counters.lookup_connections;
    return absl::OkStatus();
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  connections_.erase(session.get());
  return absl::ResourceExhaustedError(absl::StrCat(
      "attach: ", kLookupConnectionsMax, " sessions look up by connections; ask by gRPC"));
}

void LookupServer::Serve(store::Connection& connection,
                         const std::shared_ptr<ClientSession>& session) {
  while (true) {
    const absl::StatusOr<store::SocketMessage> message =
        connection.Receive(store::kSocketMessageBytesMax, absl::InfiniteDuration());
    if (!message.ok()) break;
    const std::optional<Lookup> lookup = Decode(message->bytes);
    if (!lookup.has_value()) break;
    const auto& [request, chain] = *lookup;
    v1::MatchResponse answer;
    std::function<void()> undo;
    absl::Status status = CheckBlocks(chain.size());
    if (status.ok()) {
      status = AnswerMatch(state_, session, chain,
                           request.lease_host != 0 ? std::optional(request.lease) : std::nullopt,
                           &answer, &undo);
    }
    if (absl::IsInvalidArgument(status)) ++state_.counters.invalid_calls;
    ++state_.counters.lookups;
    if (connection.Send(Encode(request.number, status, answer), -1, kLookupStallMax).ok()) continue;
    if (undo != nullptr) {
      ++state_.counters.undone_calls;
      undo();
    }
    break;
  }
  connection.Shutdown();
}

void LookupServer::EndSession(const ClientSession& session) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = connections_.find(&session);
  if (found != connections_.end()) found->second->Shutdown();
}

void LookupServer::Stop() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
    for (const auto& [session, connection] : connections_) connection->Shutdown();
  }
  threads_.reset();
}

size_t LookupServer::connections() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return connections_.size();
}

}  // namespace cairn::cache
