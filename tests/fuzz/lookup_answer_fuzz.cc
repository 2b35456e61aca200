// The client's side of look-ups (cache/client/lookup_lane.h) against a daemon that sends anything:
// messages one after another, each u16 length and its bytes. Behind them it answers honestly.
#include <cstring>
#include <deque>
#include <vector>

#include "cache/client/attach_protocol.h"
#include "cache/client/lookup_lane.h"
#include "tests/fuzz/fuzz_input.h"

namespace cairn::cache {
namespace {

constexpr uint32_t kHonestBlocks = 77;

// Sends what it is given, and then the honest answer to the last question.
class LyingDaemon final : public store::Connection {
 public:
  explicit LyingDaemon(std::deque<std::vector<uint8_t>> messages)
      : messages_(std::move(messages)) {}
  absl::Status Send(std::span<const uint8_t> bytes, int, absl::Duration) override {
    FUZZ_CHECK(bytes.size() >= sizeof(asked_));
    std::memcpy(&asked_, bytes.data(), sizeof(asked_));
    return absl::OkStatus();
  }
  absl::StatusOr<store::SocketMessage> Receive(size_t, absl::Duration) override {
    store::SocketMessage message;
    if (!messages_.empty()) {
      message.bytes = std::move(messages_.front());
      messages_.pop_front();
      return message;
    }
    v1::MatchResponse honest;
    honest.set_rows_blocks(kHonestBlocks);
    const std::string body = honest.SerializeAsString();
    const LookupAnswer header{.number = asked_.number};
    message.bytes.resize(sizeof(header) + body.size());
    std::memcpy(message.bytes.data(), &header, sizeof(header));
    std::memcpy(message.bytes.data() + sizeof(header), body.data(), body.size());
    return message;
  }
  absl::StatusOr<store::PeerCredentials> Peer() const override { return store::PeerCredentials{}; }
  void Shutdown() override {}

 private:
  std::deque<std::vector<uint8_t>> messages_;
  LookupRequest asked_;
};

}  // namespace
}  // namespace cairn::cache

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cairn::cache;
  cairn::fuzz::FuzzInput input(data, size);
  std::deque<std::vector<uint8_t>> messages;
  while (!input.empty()) {
    const auto bytes = input.TakeBytes(input.Take<uint16_t>());
    messages.emplace_back(bytes.begin(), bytes.end());
  }
  const size_t questions = messages.size() + 1;
  LookupLane lane(std::make_unique<LyingDaemon>(std::move(messages)));
  const cairn::Digest digest;
  std::optional<absl::Status> status;
  cairn::v1::MatchResponse answer;
  for (size_t i = 0; i < questions; ++i) {
    answer.Clear();
    status = lane.Match({&digest, 1}, 5, &answer, absl::Seconds(1));
    FUZZ_CHECK(status.has_value() && status->message().size() <= 1024);
  }
  // Each question takes at least one message, so this one got the honest answer.
  FUZZ_CHECK(status->ok() && answer.rows_blocks() == kHonestBlocks);
  return 0;
}
