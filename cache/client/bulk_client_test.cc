// Goal: what the bulk port may do to a client costs an error, and its bytes are as whole as their
// announcement. Method: a port by script.
#include "cache/client/bulk_client.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <future>
#include <thread>
#include <utility>

#include "cache/client/bulk_protocol.h"
#include "store/base/checksum.h"
#include "store/base/thread.h"

namespace cairn::cache {
namespace {

constexpr absl::Duration kLong = absl::Seconds(20);

// Serves connections one after another, each by its script.
class ScriptedPort {
 public:
  using Script = std::function<void(store::ByteStream&)>;
  explicit ScriptedPort(std::vector<Script> scripts)
      : listener_(*store::TcpStreams().Listen("127.0.0.1:0")),
        thread_([this, scripts = std::move(scripts)] {
          for (const Script& script : scripts) {
            auto stream = listener_->Accept(kLong);
            if (!stream.ok()) return;
            script(**stream);
          }
        }) {}
  ~ScriptedPort() {
    listener_->Shutdown();
    thread_.join();
  }
  uint16_t port() const { return listener_->port(); }

 private:
  const std::unique_ptr<store::ByteListener> listener_;
  std::thread thread_;
};

std::string TakeTicket(store::ByteStream& stream) {
  BulkPreamble preamble;
  size_t got = 0;
  while (got < preamble.size()) {
    const auto some = stream.Receive(std::span(preamble).subspan(got), kLong);
    if (!some.ok()) return "";
    got += *some;
  }
  return DecodeBulkPreamble(preamble).value_or("");
}

void Send(store::ByteStream& stream, size_t bytes) {
  const std::vector<uint8_t> data(bytes, 'd');
  ASSERT_EQ(stream.Send(data, kLong).value_or(0), bytes);
}

class BulkClientTest : public testing::Test {
 protected:
  // Two groups, of 300 and 700 bytes.
  ArrivingPrefix Grouped() {
    const std::vector<uint8_t> data(1000, 'd');
    CheckedFetch checked;
    checked.grouped = true;
    checked.rows = {{1000,
                     {{300, Checksum(std::span(data).first(300))},
                      {700, Checksum(std::span(data).first(700))}}}};
    return ArrivingPrefix(FetchRequest{.chain = chain_}, std::move(checked), pool_, {{300, 0}});
  }
  static void DrawBehind(const std::shared_ptr<BulkClient>& client, const std::string& ticket,
                         ArrivingPrefix& prefix) {
    const auto stop = std::make_shared<BulkStop>();
    prefix.DrawBehind(
        [=](ArrivingPrefix& arriving) {
          return client->Draw({&ticket, 1}, arriving, kLong, stop.get());
        },
        [stop] { stop->Stop(); });
  }
  ArrivingPrefix Prefix() {
    const std::vector<uint8_t> data(1000, 'd');
    CheckedFetch checked;
    checked.rows = {{1000, {{1000, Checksum(data)}}}};
    return ArrivingPrefix(FetchRequest{.chain = chain_}, std::move(checked), pool_);
  }
  const std::string ticket_ = "0123456789abcdef";
  const std::vector<Digest> chain_ = std::vector<Digest>(1);
  ReceivePool pool_{1 << 20};
};

TEST_F(BulkClientTest, OneConnectionServesManyTickets) {
  ScriptedPort port({[&](store::ByteStream& stream) {
    for (int i = 0; i < 3 && TakeTicket(stream) == ticket_; ++i) Send(stream, 1000);
  }});
  BulkClient client(store::TcpStreams(), "127.0.0.1", port.port(), kLong);
  for (int i = 0; i < 3; ++i) {
    ArrivingPrefix prefix = Prefix();
    const absl::Status drawn = client.Draw({&ticket_, 1}, prefix, kLong);
    ASSERT_TRUE(drawn.ok()) << drawn;
    EXPECT_TRUE(prefix.Done() && prefix.verified);
  }
  EXPECT_EQ(client.transfers(), 3u);
  EXPECT_EQ(client.failures(), 0u);
}

// Entry i of two is of 'd', and in stripe i; either ticket may come first.
class StripesTest : public BulkClientTest {
 protected:
  ArrivingPrefix InStripes() {
    const std::vector<uint8_t> data(1000, 'd');
    CheckedFetch checked;
    checked.rows = {{1000, {{1000, Checksum(data)}}}, {1000, {{1000, Checksum(data)}}}};
    return ArrivingPrefix(FetchRequest{.chain = two_}, std::move(checked), pool_, {}, 2);
  }
  const std::vector<Digest> two_ = std::vector<Digest>(2);
  const std::vector<std::string> tickets_ = {"0123456789abcdef", "fedcba9876543210"};
};

TEST_F(StripesTest, EachIsDrawnByATicketAndAConnectionOfItsOwn) {
  std::vector<std::string> shown;
  ScriptedPort port({[&](store::ByteStream& stream) {
                       shown.push_back(TakeTicket(stream));
                       Send(stream, 1000);
                     },
                     [&](store::ByteStream& stream) {
                       shown.push_back(TakeTicket(stream));
                       Send(stream, 1000);
                     }});
  BulkClient client(store::TcpStreams(), "127.0.0.1", port.port(), kLong);
  ArrivingPrefix prefix = InStripes();
  const absl::Status drawn = client.Draw(tickets_, prefix, kLong);
  ASSERT_TRUE(drawn.ok()) << drawn;
  EXPECT_TRUE(prefix.Done() && prefix.verified);
  std::sort(shown.begin(), shown.end());
  EXPECT_EQ(shown, tickets_);
  EXPECT_EQ(client.transfers(), 1u);
}

TEST_F(StripesTest, WithoutAThreadOneIsDrawnAfterTheOther) {
  std::vector<std::string> shown;
  ScriptedPort port({[&](store::ByteStream& stream) {
    for (int i = 0; i < 2; ++i) {
      shown.push_back(TakeTicket(stream));
      Send(stream, 1000);
    }
  }});
  const NoThreads none;
  BulkClient client(store::TcpStreams(), "127.0.0.1", port.port(), kLong);
  ArrivingPrefix prefix = InStripes();
  const absl::Status drawn = client.Draw(tickets_, prefix, kLong);
  ASSERT_TRUE(drawn.ok()) << drawn;
  EXPECT_TRUE(prefix.Done() && prefix.verified);
  EXPECT_EQ(shown, tickets_);
}

TEST_F(BulkClientTest, WithoutAThreadAPrefixIsThereBeforeAnybodyAsks) {
  ScriptedPort port({[&](store::ByteStream& stream) {
    if (TakeTicket(stream) == ticket_) Send(stream, 1000);
  }});
  const auto client =
      std::make_shared<BulkClient>(store::TcpStreams(), "127.0.0.1", port.port(), kLong);
  ArrivingPrefix prefix = Grouped();
  {
    const NoThreads none;
    DrawBehind(client, ticket_, prefix);
  }
  EXPECT_TRUE(prefix.Done());
  EXPECT_TRUE(prefix.arrival().ended);
  EXPECT_TRUE(prefix.Await(2).ok());
}

// The port has taken the other's ticket, and would never send what it is for.
TEST_F(StripesTest, OneThatFailsEndsTheOther) {
  std::promise<absl::Status> ended;
  const auto listener = *store::TcpStreams().Listen("127.0.0.1:0");
  std::thread both([&] {
    auto first = *listener->Accept(kLong);
    auto second = *listener->Accept(kLong);
    TakeTicket(*first);
    TakeTicket(*second);
    second.reset();
    uint8_t byte = 0;
    ended.set_value(first->Receive({&byte, 1}, kLong).status());
  });
  BulkClient client(store::TcpStreams(), "127.0.0.1", listener->port(), kLong);
  ArrivingPrefix prefix = InStripes();
  const absl::Status drawn = client.Draw(tickets_, prefix, kLong);
  EXPECT_TRUE(absl::IsUnavailable(drawn)) << drawn;
  EXPECT_FALSE(prefix.Done());
  EXPECT_TRUE(absl::IsUnavailable(ended.get_future().get()));
  both.join();
  EXPECT_EQ(client.failures(), 1u);
}

TEST_F(BulkClientTest, ATruncatedTransferIsAnErrorAndItsConnectionIsNotKept) {
  ScriptedPort port({[&](store::ByteStream& stream) {
                       TakeTicket(stream);
                       Send(stream, 999);
                     },
                     [&](store::ByteStream& stream) {
                       TakeTicket(stream);
                       Send(stream, 1000);
                     }});
  BulkClient client(store::TcpStreams(), "127.0.0.1", port.port(), kLong);
  ArrivingPrefix cut = Prefix();
  EXPECT_TRUE(absl::IsUnavailable(client.Draw({&ticket_, 1}, cut, kLong)));
  EXPECT_FALSE(cut.Done());
  EXPECT_EQ(client.failures(), 1u);
  ArrivingPrefix whole = Prefix();
  EXPECT_TRUE(client.Draw({&ticket_, 1}, whole, kLong).ok());
}

TEST_F(BulkClientTest, AConnectionThatIsCutBehindTheFirstGroupIsAFailure) {
  std::promise<void> cut;
  ScriptedPort port({[&](store::ByteStream& stream) {
    TakeTicket(stream);
    Send(stream, 999);
    cut.get_future().wait();
  }});
  const auto client =
      std::make_shared<BulkClient>(store::TcpStreams(), "127.0.0.1", port.port(), kLong);
  ArrivingPrefix prefix = Grouped();
  DrawBehind(client, ticket_, prefix);
  ASSERT_TRUE(prefix.Await(1).ok());
  EXPECT_FALSE(prefix.arrival().ended);
  cut.set_value();
  EXPECT_TRUE(absl::IsUnavailable(prefix.Await(2)));
  EXPECT_EQ(client->failures(), 1u);
  EXPECT_FALSE(client->usable());
}

// The port learns of it at once, and it is no failure of the port's.
TEST_F(BulkClientTest, ADroppedPrefixEndsItsTransfer) {
  std::promise<absl::Status> ended;
  ScriptedPort port({[&](store::ByteStream& stream) {
    TakeTicket(stream);
    Send(stream, 500);
    uint8_t byte = 0;
    ended.set_value(stream.Receive({&byte, 1}, kLong).status());
  }});
  const auto client =
      std::make_shared<BulkClient>(store::TcpStreams(), "127.0.0.1", port.port(), kLong);
  {
    ArrivingPrefix prefix = Grouped();
    DrawBehind(client, ticket_, prefix);
    ASSERT_TRUE(prefix.Await(1).ok());
  }
  EXPECT_TRUE(absl::IsUnavailable(ended.get_future().get()));
  EXPECT_EQ(client->failures(), 0u);
  EXPECT_TRUE(client->usable());
}

TEST_F(BulkClientTest, AKeptConnectionThatWasClosedIsMadeAnew) {
  const ScriptedPort::Script once = [&](store::ByteStream& stream) {
    TakeTicket(stream);
    Send(stream, 1000);
  };
  ScriptedPort port({once, once});
  BulkClient client(store::TcpStreams(), "127.0.0.1", port.port(), kLong);
  for (int i = 0; i < 2; ++i) {
    ArrivingPrefix prefix = Prefix();
    const absl::Status drawn = client.Draw({&ticket_, 1}, prefix, kLong);
    ASSERT_TRUE(drawn.ok()) << drawn;
  }
  EXPECT_EQ(client.failures(), 0u);
}

TEST_F(BulkClientTest, ASilentPortCostsTheDeadlineOrTheTimeWithoutProgress) {
  constexpr absl::Duration kShort = absl::Milliseconds(30);
  for (const auto& [timeout, stall] : {std::pair(kShort, kLong), std::pair(kLong, kShort)}) {
    std::promise<void> over;
    ScriptedPort port({[&](store::ByteStream&) { over.get_future().wait(); }});
    BulkClient client(store::TcpStreams(), "127.0.0.1", port.port(), stall);
    ArrivingPrefix prefix = Prefix();
    EXPECT_TRUE(absl::IsDeadlineExceeded(client.Draw({&ticket_, 1}, prefix, timeout)));
    over.set_value();
  }
}

TEST_F(BulkClientTest, NobodyThereIsNotAskedAgain) {
  const uint16_t port = (*store::TcpStreams().Listen("127.0.0.1:0"))->port();
  BulkClient client(store::TcpStreams(), "127.0.0.1", port, kLong);
  EXPECT_TRUE(client.usable());
  ArrivingPrefix prefix = Prefix();
  EXPECT_TRUE(absl::IsUnavailable(client.Draw({&ticket_, 1}, prefix, kLong)));
  EXPECT_FALSE(client.usable());
  EXPECT_FALSE(BulkClient(store::TcpStreams(), "127.0.0.1", 0, kLong).usable());
}

TEST(BulkPreamble, AnotherMagicOrVersionIsNone) {
  const std::string ticket = "0123456789abcdef";
  EXPECT_EQ(DecodeBulkPreamble(EncodeBulkPreamble(ticket)), ticket);
  for (size_t i = 0; i < kBulkPreambleBytes - kTicketBytes; ++i) {
    BulkPreamble preamble = EncodeBulkPreamble(ticket);
    preamble[i] ^= 0x40;
    EXPECT_FALSE(DecodeBulkPreamble(preamble).has_value()) << i;
  }
}

TEST(HostOfPeer, BothFamiliesAndNoOther) {
  EXPECT_EQ(HostOfPeer("ipv4:10.0.0.5:7070"), "10.0.0.5");
  EXPECT_EQ(HostOfPeer("ipv6:%5B::1%5D:7070"), "::1");
  EXPECT_EQ(HostOfPeer("ipv6:%5Bfe80::1%25eth0%5D:7070"), "fe80::1%eth0");
  EXPECT_EQ(HostOfPeer("unix:/run/cairn.sock"), "");
  EXPECT_EQ(HostOfPeer(""), "");
}

}  // namespace
}  // namespace cairn::cache
