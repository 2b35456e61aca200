// Goal: only who shows the certificate that is asked for, for the name that is asked for, hears or
// says a byte; whatever else comes ends in time and says why. Method: two ends on loopback, with
// certificates of authorities made for the test. That bytes cross: byte_stream_test.cc.
#include "store/device/tls_stream.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <future>
#include <vector>

#include "store/device/tls_test_certificates.h"

namespace cairn::store {
namespace {

constexpr absl::Duration kLong = absl::Seconds(20);

class TlsStreamTest : public testing::Test {
 protected:
  // What both ends come to when such a client says a byte to such a listener.
  struct Ends {
    absl::Status client, listener;
  };
  static Ends Meet(const TlsCredentials& listening, const TlsCredentials& connecting,
                   const std::string& name = "127.0.0.1") {
    const auto listener = *(*TlsListeners(listening))->Listen("127.0.0.1:0");
    auto client = std::async(std::launch::async, [&] {
      return Say(**TlsConnections(connecting, name), listener->port());
    });
    const auto accepted = *listener->Accept(kLong);
    Ends ends;
    ends.listener = Hear(*accepted, kLong);
    accepted->Shutdown();
    ends.client = client.get();
    return ends;
  }
  // Whether a byte could be said to whoever listens there, and was answered by its closing.
  static absl::Status Say(ByteStreamDoor& door, uint16_t port) {
    CAIRN_ASSIGN_OR_RETURN(const auto stream, door.Connect("127.0.0.1", port, kLong));
    uint8_t byte = 42;
    CAIRN_RETURN_IF_ERROR(stream->Send({&byte, 1}, kLong).status());
    return stream->Receive({&byte, 1}, kLong).status();
  }
  static absl::Status Hear(ByteStream& stream, absl::Duration timeout) {
    uint8_t byte = 0;
    CAIRN_RETURN_IF_ERROR(stream.Receive({&byte, 1}, timeout).status());
    EXPECT_EQ(byte, 42);
    return absl::OkStatus();
  }
  static bool Says(const absl::Status& status, const std::string& what) {
    return std::string(status.message()).find(what) != std::string::npos;
  }

  const TestAuthority authority_, stranger_;
  const TlsCredentials own_ = authority_.Issue("DNS:cache.example,IP:127.0.0.1");
  const TlsCredentials trusting_{.authorities = authority_.certificate()};
};

TEST_F(TlsStreamTest, TheNameOrTheAddressOfTheCertificateIsMet) {
  const TlsCredentials open{own_.certificate, own_.key, ""};
  for (const char* name : {"127.0.0.1", "cache.example"}) {
    EXPECT_TRUE(Meet(open, trusting_, name).listener.ok()) << name;
  }
  for (const char* name : {"127.0.0.2", "other.example"}) {
    const Ends ends = Meet(open, trusting_, name);
    EXPECT_TRUE(absl::IsUnavailable(ends.listener)) << name;
    EXPECT_TRUE(absl::IsUnavailable(ends.client) && Says(ends.client, "verify failed"))
        << ends.client;
  }
}

TEST_F(TlsStreamTest, AStrangersOrAnOldCertificateIsNotBelieved) {
  for (const TlsCredentials& listening :
       {stranger_.Issue("IP:127.0.0.1"), authority_.Issue("IP:127.0.0.1", /*days=*/-1)}) {
    const Ends ends = Meet({listening.certificate, listening.key, ""}, trusting_);
    EXPECT_TRUE(absl::IsUnavailable(ends.client)) << ends.client;
    EXPECT_TRUE(absl::IsUnavailable(ends.listener)) << ends.listener;
  }
}

TEST_F(TlsStreamTest, AListenerWithAuthoritiesHearsTheirClientsOnly) {
  EXPECT_TRUE(Meet(own_, authority_.Issue("DNS:an.engine")).listener.ok());
  EXPECT_TRUE(absl::IsUnavailable(Meet(own_, trusting_).listener)) << "no certificate";
  TlsCredentials other = stranger_.Issue("DNS:an.engine");
  other.authorities = authority_.certificate();
  const Ends ends = Meet(own_, other);
  EXPECT_TRUE(absl::IsUnavailable(ends.listener)) << ends.listener;
  EXPECT_TRUE(absl::IsUnavailable(ends.client)) << ends.client;
}

TEST_F(TlsStreamTest, APlainPeerGetsNothingAndIsToldApart) {
  const auto listener = *(*TlsListeners(own_))->Listen("127.0.0.1:0");
  const auto client = *TcpStreams().Connect("127.0.0.1", listener->port(), kLong);
  const auto accepted = *listener->Accept(kLong);
  const std::vector<uint8_t> plain(100, 42);
  ASSERT_TRUE(client->Send(plain, kLong).ok());
  std::vector<uint8_t> room(100);
  const absl::Status heard = accepted->Receive(room, kLong).status();
  EXPECT_TRUE(absl::IsUnavailable(heard) && Says(heard, "wrong version")) << heard;
}

// One byte of a handshake after the other, each in time, do not hold the listener's end.
TEST_F(TlsStreamTest, AHandshakeThatDripsCostsTheTimeout) {
  const auto listener = *(*TlsListeners(own_))->Listen("127.0.0.1:0");
  const auto client = *TcpStreams().Connect("127.0.0.1", listener->port(), kLong);
  const auto accepted = *listener->Accept(kLong);
  const std::vector<uint8_t> hello = {0x16, 0x03, 0x01, 0x02, 0x00};  // of 512 bytes
  ASSERT_TRUE(client->Send(hello, kLong).ok());
  std::vector<uint8_t> room(100);
  EXPECT_TRUE(absl::IsDeadlineExceeded(accepted->Receive(room, absl::Milliseconds(20)).status()));
  const uint8_t more = 1;
  ASSERT_TRUE(client->Send({&more, 1}, kLong).ok());
  EXPECT_TRUE(absl::IsDeadlineExceeded(accepted->Receive(room, absl::Milliseconds(20)).status()));
}

TEST_F(TlsStreamTest, AListenerThatSaysNothingCostsAConnectionItsTimeout) {
  const auto listener = *TcpStreams().Listen("127.0.0.1:0");
  const auto door = *TlsConnections(trusting_, "127.0.0.1");
  EXPECT_TRUE(absl::IsDeadlineExceeded(
      door->Connect("127.0.0.1", listener->port(), absl::Milliseconds(20)).status()));
}

TEST_F(TlsStreamTest, WrongCredentialsAreNamed) {
  const TlsCredentials other = authority_.Issue("DNS:other");
  const std::vector<std::pair<TlsCredentials, std::string>> wrong = {
      {{"", own_.key, ""}, "certificate"},
      {{"nonsense", own_.key, ""}, "certificate"},
      {{own_.certificate, "", ""}, "key"},
      {{own_.certificate, "nonsense", ""}, "key"},
      {{own_.certificate, other.key, ""}, "key"},
      {{own_.certificate, own_.key, "nonsense"}, "authorities"}};
  for (const auto& [credentials, named] : wrong) {
    const absl::Status status = TlsListeners(credentials).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status) && Says(status, named)) << status;
  }
  EXPECT_TRUE(absl::IsInvalidArgument(TlsConnections({}, "a").status())) << "whom to believe";
  // Nobody is asked for a passphrase.
  const absl::Status locked =
      TlsListeners({own_.certificate, TestAuthority::Encrypted(own_.key), ""}).status();
  EXPECT_TRUE(absl::IsInvalidArgument(locked) && Says(locked, "key")) << locked;
}

TEST_F(TlsStreamTest, FilesAreReadAndThoseThatAreNotThereNamed) {
  const std::string folder = testing::TempDir() + "cairn_tls." + std::to_string(::getpid());
  std::filesystem::create_directory(folder);
  std::ofstream(folder + "/cert.pem") << own_.certificate;
  const auto read = ReadTls(folder + "/cert.pem", "", "");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->certificate, own_.certificate);
  EXPECT_TRUE(read->key.empty() && read->authorities.empty());
  const absl::Status missing = ReadTls("", folder + "/key.pem", "").status();
  EXPECT_TRUE(absl::IsNotFound(missing) && Says(missing, "key.pem")) << missing;
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace cairn::store
