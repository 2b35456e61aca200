#include "cache/client/lookup_lane.h"

#include <algorithm>
#include <cstring>
#include <thread>

#include "cache/client/attach_protocol.h"
#include "cache/client/protocol.h"
#include "store/base/clock.h"

namespace cairn::cache {
namespace {

// About as long as the daemon takes for a hit. To be woken takes a thread some 28 us of 98 under a
// hypervisor, so it sleeps only after this; until then whoever wants its processor has it.
constexpr int64_t kAwakeNanos = 50'000;

// Until `end`, of the real clock.
absl::StatusOr<store::SocketMessage> ReceiveAwake(store::Connection& connection, int64_t end) {
  int64_t now = RealClock().NowNanos();
  for (const int64_t sleep = std::min(end, now + kAwakeNanos); now < sleep;
       now = RealClock().NowNanos()) {
    absl::StatusOr<store::SocketMessage> message =
        connection.Receive(store::kSocketMessageBytesMax, absl::ZeroDuration());
    if (!absl::IsDeadlineExceeded(message.status())) return message;
    std::this_thread::yield();
  }
  return connection.Receive(store::kSocketMessageBytesMax, absl::Nanoseconds(end - now));
}

absl::Status Wrong(const char* what) {
  return absl::UnavailableError(absl::StrCat("the daemon's answer is wrong: look-up: ", what));
}

}  // namespace

std::optional<absl::Status> LookupLane::Match(std::span<const Digest> chain,
                                              std::optional<uint64_t> lease,
                                              v1::MatchResponse* answer, absl::Duration timeout) {
  if (chain.size() > kLookupBlocksMax) return std::nullopt;
  const std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock);
  if (!lock.owns_lock() || connection_ == nullptr) return std::nullopt;
  return Ask(chain, lease, answer, timeout);
}

std::optional<absl::Status> LookupLane::Ask(std::span<const Digest> chain,
                                            std::optional<uint64_t> lease,
                                            v1::MatchResponse* answer, absl::Duration timeout) {
  const int64_t end = RealClock().NowNanos() + absl::ToInt64Nanoseconds(timeout);
  const LookupRequest asked{
      .number = ++number_, .lease_host = lease.has_value(), .lease = lease.value_or(0)};
  request_.resize(sizeof(asked) + chain.size_bytes());
  std::memcpy(request_.data(), &asked, sizeof(asked));
  if (!chain.empty())
    std::memcpy(request_.data() + sizeof(asked), chain.data(), chain.size_bytes());
  absl::Status sent = connection_->Send(request_, -1, timeout);
  if (absl::IsDeadlineExceeded(sent)) return sent;
  if (!sent.ok()) {  // closed by the daemon: why, gRPC's call will say
    connection_.reset();
    return std::nullopt;
  }
  while (true) {
    const absl::StatusOr<store::SocketMessage> message = ReceiveAwake(*connection_, end);
    if (absl::IsDeadlineExceeded(message.status())) return message.status();
    if (!message.ok()) {
      connection_.reset();
      return absl::UnavailableError("the daemon closed the connection of look-ups");
    }
    LookupAnswer header;
    if (message->bytes.size() < sizeof(header)) return Wrong("no header");
    std::memcpy(&header, message->bytes.data(), sizeof(header));
    const std::span<const uint8_t> body = std::span(message->bytes).subspan(sizeof(header));
    if (header.number != asked.number) {
      // Of a look-up that was given up. By wrap-around arithmetic such a number is smaller.
      if (static_cast<int32_t>(header.number - asked.number) < 0) continue;
      return Wrong("of no question");
    }
    if (header.code != 0) {
      return StatusFromWire(header.code,
                            std::string(reinterpret_cast<const char*>(body.data()), body.size()));
    }
    if (!answer->ParseFromArray(body.data(), static_cast<int>(body.size()))) {
      return Wrong("not a MatchResponse");
    }
    return absl::OkStatus();
  }
}

}  // namespace cairn::cache
