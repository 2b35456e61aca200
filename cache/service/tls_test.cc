// Goal: where the daemon's TCP speaks TLS nobody gets or gives a byte without it, on either port;
// engines of the daemon's authorities have all they have without it. Method: a whole daemon behind
// real sockets, certificates of authorities made for the test.
#include <gtest/gtest.h>

#include "cache/client/bulk_protocol.h"
#include "cache/service/raw_client.h"
#include "cache/service/service_rig.h"
#include "store/device/tls_test_certificates.h"

namespace cairn::cache {
namespace {

class TlsDaemon : public testing::Test {
 protected:
  void Start(const store::TlsCredentials& credentials) {
    auto started =
        CacheServer::Start({.socket = folder_ / "cairn.sock",
                            .listen = "127.0.0.1:0",
                            .admin_socket = "",
                            .bulk_listen = "127.0.0.1:0",
                            .version = "test",
                            .tls = credentials},
                           *core_.core, core_.clock, SystemRandom(), store::UnixSockets());
    ASSERT_TRUE(started.ok()) << started.status();
    server_ = *std::move(started);
  }
  absl::StatusOr<std::unique_ptr<CacheApi>> Connect(
      std::optional<store::TlsCredentials> tls, bool bulk = true,
      absl::Duration connect_timeout = absl::Seconds(20)) const {
    RemoteCacheOptions options = PatientOptions();
    options.connect_timeout = connect_timeout;
    options.bulk = bulk;
    options.tls = std::move(tls);
    return ConnectCache(absl::StrCat("127.0.0.1:", server_->tcp_port()), RigSpec(""), options);
  }
  // Who is refused learns it by a handshake that fails, and tries again until its patience ends.
  void ExpectRefused(std::optional<store::TlsCredentials> tls) const {
    EXPECT_FALSE(Connect(std::move(tls), true, absl::Milliseconds(500)).ok());
  }

  const store::TestAuthority authority_, stranger_;
  const store::TlsCredentials own_ = authority_.Issue("IP:127.0.0.1");
  const store::TlsCredentials engine_ = authority_.Issue("DNS:an.engine");
  TestFolder folder_;
  CoreRig core_{{.host_units = 256, .disk_bytes = 0}};
  std::unique_ptr<CacheServer> server_;
};

TEST_F(TlsDaemon, AnEngineOfItsAuthoritiesPutsAndFetchesOnBothPorts) {
  Start(own_);
  for (const bool bulk : {true, false}) {
    const auto cache = Connect(engine_, bulk);
    ASSERT_TRUE(cache.ok()) << cache.status();
    const auto chain = ChainOf(**cache, 3, bulk ? 1 : 2);
    PutAll(**cache, chain);
    const auto fetched = (*cache)->Fetch({.chain = chain});
    ASSERT_TRUE(fetched.ok()) << fetched.status();
    ExpectPrefix(**fetched, chain);
    EXPECT_EQ(StatOf(**cache, "client_bulk_transfers"), bulk ? 1u : 0u);
    EXPECT_EQ(StatOf(**cache, "client_bulk_failures"), 0u);
  }
}

TEST_F(TlsDaemon, WhoIsNotOfThemIsRefused) {
  Start(own_);
  ExpectRefused(std::nullopt);
  ExpectRefused(store::TlsCredentials{.authorities = authority_.certificate()});
  store::TlsCredentials other = stranger_.Issue("DNS:an.engine");
  other.authorities = authority_.certificate();
  ExpectRefused(other);
}

TEST_F(TlsDaemon, ADaemonThatIsNotOfTheEnginesAuthoritiesIsNotBelieved) {
  Start({own_.certificate, own_.key, ""});
  EXPECT_TRUE(Connect(store::TlsCredentials{.authorities = authority_.certificate()}).ok())
      << "without authorities it asks for no certificate";
  ExpectRefused(store::TlsCredentials{.authorities = stranger_.certificate()});
}

TEST_F(TlsDaemon, ATicketInTheClearGetsNothing) {
  Start(own_);
  const auto stream = *store::TcpStreams().Connect(
      "127.0.0.1", static_cast<uint16_t>(server_->bulk_port()), absl::Seconds(20));
  const BulkPreamble preamble = EncodeBulkPreamble(std::string(kTicketBytes, 't'));
  ASSERT_TRUE(stream->Send(preamble, absl::Seconds(20)).ok());
  std::vector<uint8_t> room(100);
  // Closed at once, or behind TLS's own word that this is none.
  absl::StatusOr<size_t> got = stream->Receive(room, absl::Seconds(20));
  if (got.ok()) got = stream->Receive(room, absl::Seconds(20));
  EXPECT_TRUE(absl::IsUnavailable(got.status())) << got.status();
}

TEST_F(TlsDaemon, TheUnixSocketIsAsItWas) {
  Start(own_);
  const auto cache = ConnectCache("unix:" + folder_ / "cairn.sock", RigSpec(""), PatientOptions());
  ASSERT_TRUE(cache.ok()) << cache.status();
  EXPECT_TRUE((*cache)->registration().mapped);
}

TEST_F(TlsDaemon, CredentialsThatAreNoneAreNamed) {
  const auto started =
      CacheServer::Start({.socket = folder_ / "cairn.sock",
                          .listen = "127.0.0.1:0",
                          .admin_socket = "",
                          .bulk_listen = "",
                          .version = "test",
                          .tls = store::TlsCredentials{own_.certificate, engine_.key, ""}},
                         *core_.core, core_.clock, SystemRandom(), store::UnixSockets());
  EXPECT_TRUE(absl::IsInvalidArgument(started.status())) << started.status();
  Start(own_);
  const auto connected = Connect(store::TlsCredentials{});
  EXPECT_TRUE(absl::IsInvalidArgument(connected.status())) << connected.status();
}

}  // namespace
}  // namespace cairn::cache
