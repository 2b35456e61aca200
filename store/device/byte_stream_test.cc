// Goal: bytes cross in order, every wait ends, and a shut or absent peer is told apart from a slow
// one. Method: two ends on loopback, plain and under TLS.
#include <gtest/gtest.h>

#include <algorithm>
#include <future>
#include <numeric>
#include <vector>

#include "store/device/byte_stream.h"
#include "store/device/tls_stream.h"
#include "store/device/tls_test_certificates.h"

namespace cairn::store {
namespace {

constexpr absl::Duration kLong = absl::Seconds(20);

class ByteStreamTest : public testing::TestWithParam<bool> {
 protected:
  ByteStreamTest() {
    if (!GetParam()) return;
    const TlsCredentials credentials = TestAuthority().Issue("IP:127.0.0.1");
    tls_listening_ = *TlsListeners(credentials);
    tls_connecting_ = *TlsConnections(credentials, "127.0.0.1");
  }
  ByteStreamDoor& listening() { return GetParam() ? *tls_listening_ : TcpStreams(); }
  ByteStreamDoor& connecting() { return GetParam() ? *tls_connecting_ : TcpStreams(); }

  void SetUp() override {
    auto listening_at = listening().Listen("127.0.0.1:0");
    ASSERT_TRUE(listening_at.ok()) << listening_at.status();
    listener_ = std::move(*listening_at);
    auto connecting_to = std::async(std::launch::async, [this] {
      return connecting().Connect("127.0.0.1", listener_->port(), kLong);
    });
    auto accepted = listener_->Accept(kLong);
    ASSERT_TRUE(accepted.ok()) << accepted.status();
    far_ = std::move(*accepted);
    // A handshake is part of the first call.
    auto greeting = std::async(std::launch::async, [this] { Get(*far_, 1); });
    auto connected = connecting_to.get();
    ASSERT_TRUE(connected.ok()) << connected.status();
    near_ = std::move(*connected);
    const uint8_t byte = 0;
    ASSERT_TRUE(near_->Send({&byte, 1}, kLong).ok());
  }
  static std::vector<uint8_t> Get(ByteStream& from, size_t bytes) {
    std::vector<uint8_t> got(bytes);
    for (size_t at = 0; at < got.size();) {
      const auto some = from.Receive(std::span(got).subspan(at), kLong);
      EXPECT_TRUE(some.ok()) << some.status();
      if (!some.ok()) return {};
      at += *some;
    }
    return got;
  }

  std::unique_ptr<ByteStreamDoor> tls_listening_, tls_connecting_;
  std::unique_ptr<ByteListener> listener_;
  std::unique_ptr<ByteStream> near_, far_;
};

TEST_P(ByteStreamTest, BytesCrossInOrder) {
  std::vector<uint8_t> sent(3'000'001);
  std::iota(sent.begin(), sent.end(), uint8_t{1});
  auto sending = std::async(std::launch::async, [&] {
    size_t at = 0;
    while (at < sent.size()) {
      const auto some = near_->Send(std::span(sent).subspan(at), kLong);
      if (!some.ok()) return some.status();
      at += *some;
    }
    return absl::OkStatus();
  });
  EXPECT_TRUE(Get(*far_, sent.size()) == sent);
  EXPECT_TRUE(sending.get().ok());
}

TEST_P(ByteStreamTest, APeerThatGivesOrTakesNothingCostsTheTimeout) {
  std::vector<uint8_t> bytes(1 << 20);
  EXPECT_TRUE(absl::IsDeadlineExceeded(near_->Receive(bytes, absl::Milliseconds(10)).status()));
  absl::Status status;
  while (status.ok()) status = near_->Send(bytes, absl::Milliseconds(10)).status();
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
  EXPECT_TRUE(absl::IsDeadlineExceeded(listener_->Accept(absl::Milliseconds(10)).status()));
}

TEST_P(ByteStreamTest, AClosedPeerAndAShutEndAreUnavailable) {
  std::vector<uint8_t> bytes(10);
  auto waiting =
      std::async(std::launch::async, [&] { return near_->Receive(bytes, kLong).status(); });
  far_.reset();
  EXPECT_TRUE(absl::IsUnavailable(waiting.get()));
  near_->Shutdown();
  EXPECT_TRUE(absl::IsUnavailable(near_->Send(bytes, kLong).status()));
}

TEST_P(ByteStreamTest, WhoSendsNoMoreStillReceives) {
  const std::vector<uint8_t> last = {1, 2, 3}, answer = {4, 5};
  ASSERT_TRUE(near_->Send(last, kLong).ok());
  near_->EndSending();
  EXPECT_EQ(Get(*far_, last.size()), last);
  std::vector<uint8_t> room(10);
  EXPECT_TRUE(absl::IsUnavailable(far_->Receive(room, kLong).status()));
  ASSERT_TRUE(far_->Send(answer, kLong).ok());
  EXPECT_EQ(Get(*near_, answer.size()), answer);
}

TEST_P(ByteStreamTest, ListenersEndAndNobodyThereIsSaid) {
  const uint16_t port = listener_->port();
  const auto taken = listening().Listen(absl::StrCat("127.0.0.1:", port));
  EXPECT_TRUE(absl::IsFailedPrecondition(taken.status())) << taken.status();
  auto waiting = std::async(std::launch::async, [&] { return listener_->Accept(kLong).status(); });
  listener_->Shutdown();
  EXPECT_TRUE(absl::IsUnavailable(waiting.get()));
  listener_.reset();
  EXPECT_TRUE(absl::IsUnavailable(connecting().Connect("127.0.0.1", port, kLong).status()));
}

INSTANTIATE_TEST_SUITE_P(, ByteStreamTest, testing::Bool(),
                         [](const auto& kind) { return kind.param ? "Tls" : "Tcp"; });

TEST(HostPort, BothHalvesOrAnError) {
  EXPECT_EQ(ParseHostPort("10.0.0.5:7070")->host, "10.0.0.5");
  EXPECT_EQ(ParseHostPort("[::1]:0")->host, "::1");
  EXPECT_EQ(ParseHostPort("a.b:65535")->port, 65535);
  for (const char* bad : {"", "a", ":1", "a:", "a:65536", "a:-1", "::1:5", "a:1x", "[]:1"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParseHostPort(bad).status())) << bad;
  }
}

}  // namespace
}  // namespace cairn::store
