// Goal: matches by a connection of their own are those of gRPC, for open sessions only, within
// bounds; what they lease is given back when nobody takes the answer. Method: in-process sockets
// before a real core or one that answers when it is told.
#include "cache/service/lookup_server.h"

#include <cstring>
#include <future>

#include "cache/client/answer_check.h"
#include "cache/client/attach_client.h"
#include "cache/client/attach_protocol.h"
#include "cache/client/lookup_lane.h"
#include "cache/service/attach_server.h"
#include "cache/service/scripted_core.h"
#include "cache/service/service_state.h"
#include "store/base/random.h"

namespace cairn::cache {
namespace {

constexpr char kPath[] = "/cairn.sock.fd";
constexpr absl::Duration kPatience = absl::Seconds(20);

struct LookupRig {
  explicit LookupRig(CacheCore& core)
      : state(core, SystemRandom(), "test", "cairn.sock.fd"),
        server(*AttachServer::Start(kPath, sockets, core, state.sessions, state.lookups.get())) {}
  ~LookupRig() {
    server.reset();
    state.lookups->Stop();
  }
  absl::StatusOr<std::unique_ptr<store::Connection>> Open(const ClientSession& session) {
    return AttachClient(sockets, kPath, session.token(), kPatience).OpenLookups();
  }

  store::MemorySockets sockets;
  ServiceState state;
  std::unique_ptr<AttachServer> server;
};

std::vector<uint8_t> RequestOf(const LookupRequest& request, size_t digest_bytes) {
  std::vector<uint8_t> message(sizeof(request) + digest_bytes);
  std::memcpy(message.data(), &request, sizeof(request));
  return message;
}

TEST(LookupServer, AMatchAndItsLeaseAreTheCores) {
  CoreRig core({.disk_bytes = 0});
  const std::vector<Digest> chain = core.Chain(3);
  ASSERT_TRUE(core.PutAll(chain).ok());
  LookupRig rig(*core.core);
  const auto session = rig.state.sessions.Add(core.session, true);
  LookupLane lane(*rig.Open(*session));
  v1::MatchResponse answer;
  ASSERT_EQ(lane.Match(chain, 42, &answer, kPatience), absl::OkStatus());
  EXPECT_EQ(answer.rows_blocks(), 3u);
  EXPECT_EQ(answer.leased().lease(), 42u);
  EXPECT_EQ(answer.leased().offsets_size(), 4);
  EXPECT_EQ(core.Stat("open_leases"), 1u);
  EXPECT_TRUE(core.core->Release(core.session, 42).ok());
  // The same number again is refused while it is in use, and the reason comes whole.
  ASSERT_EQ(lane.Match(chain, 43, &answer, kPatience), absl::OkStatus());
  const auto refused = lane.Match(chain, 43, &answer, kPatience);
  ASSERT_TRUE(refused.has_value());
  EXPECT_TRUE(absl::IsInvalidArgument(*refused)) << *refused;
  EXPECT_NE(refused->message().find("in use"), std::string::npos) << *refused;
  EXPECT_TRUE(core.core->Release(core.session, 43).ok());
  // Without a lease, and of nothing.
  ASSERT_EQ(lane.Match(chain, std::nullopt, &answer, kPatience), absl::OkStatus());
  EXPECT_FALSE(answer.has_leased());
  ASSERT_EQ(lane.Match({}, std::nullopt, &answer, kPatience), absl::OkStatus());
  EXPECT_EQ(core.Stat("open_leases"), 0u);
}

TEST(LookupServer, OneConnectionASessionAndOnlyWhileItIsOpen) {
  CoreRig core({.disk_bytes = 0});
  LookupRig rig(*core.core);
  const auto session = rig.state.sessions.Add(core.session, true);
  LookupLane lane(*rig.Open(*session));
  v1::MatchResponse answer;
  EXPECT_TRUE(absl::IsAlreadyExists(rig.Open(*session).status()));
  EXPECT_EQ(lane.Match({}, std::nullopt, &answer, kPatience), absl::OkStatus());
  rig.state.sessions.Remove(session->token());
  rig.state.lookups->EndSession(*session);
  EXPECT_EQ(lane.Match({}, std::nullopt, &answer, kPatience), std::nullopt);
  EXPECT_TRUE(absl::IsAborted(rig.Open(*session).status()));
  EXPECT_EQ(rig.state.counters.lookup_connections, 1u);
}

TEST(LookupServer, ABusyDaemonSendsThemToGrpc) {
  CoreRig core({.disk_bytes = 0});
  LookupRig rig(*core.core);
  std::vector<std::shared_ptr<ClientSession>> sessions;
  std::vector<std::unique_ptr<store::Connection>> open;
  for (size_t i = 0; i < kLookupConnectionsMax; ++i) {
    sessions.push_back(rig.state.sessions.Add(core.session, true));
    open.push_back(*rig.Open(*sessions.back()));
  }
  sessions.push_back(rig.state.sessions.Add(core.session, true));
  EXPECT_TRUE(absl::IsResourceExhausted(rig.Open(*sessions.back()).status()));
  EXPECT_EQ(rig.state.lookups->connections(), kLookupConnectionsMax);
}

TEST(LookupServer, NonsenseEndsItsConnectionOnly) {
  CoreRig core({.disk_bytes = 0});
  LookupRig rig(*core.core);
  const auto honest_session = rig.state.sessions.Add(core.session, true);
  LookupLane honest(*rig.Open(*honest_session));
  for (const std::vector<uint8_t>& nonsense :
       {std::vector<uint8_t>(5), RequestOf({.number = 1}, 31)}) {
    const auto session = rig.state.sessions.Add(core.session, true);
    const auto connection = *rig.Open(*session);
    ASSERT_TRUE(connection->Send(nonsense, -1, kPatience).ok());
    EXPECT_TRUE(absl::IsUnavailable(connection->Receive(4096, kPatience).status()));
  }
  v1::MatchResponse answer;
  EXPECT_EQ(honest.Match({}, std::nullopt, &answer, kPatience), absl::OkStatus());
}

TEST(LookupServer, AChainOverTheBoundIsNamed) {
  CoreRig core({.disk_bytes = 0});
  LookupRig rig(*core.core);
  const auto session = rig.state.sessions.Add(core.session, true);
  const auto connection = *rig.Open(*session);
  const auto request = RequestOf({.number = 7}, (kLookupBlocksMax + 1) * Digest::kBytes);
  ASSERT_TRUE(connection->Send(request, -1, kPatience).ok());
  const auto message = connection->Receive(4096, kPatience);
  ASSERT_TRUE(message.ok()) << message.status();
  LookupAnswer answer;
  std::memcpy(&answer, message->bytes.data(), sizeof(answer));
  EXPECT_EQ(answer.number, 7u);
  EXPECT_EQ(answer.code, static_cast<uint32_t>(absl::StatusCode::kInvalidArgument));
  const std::string text(message->bytes.begin() + sizeof(answer), message->bytes.end());
  EXPECT_NE(text.find("chain: 1025 blocks"), std::string::npos) << text;
  EXPECT_EQ(rig.state.counters.invalid_calls, 1u);
}

TEST(LookupServer, WhatNobodyTakesIsGivenBack) {
  ScriptedCore core;
  std::promise<void> asked, gone;
  core.match_and_lease = [&] {
    asked.set_value();
    gone.get_future().wait();
    CoreMatch match{{.rows_blocks = 2, .rows_host_blocks = 2}, core.Honest()};
    match.leased->lease = 42;
    return match;
  };
  LookupRig rig(core);
  const auto session = rig.state.sessions.Add(1, true);
  auto connection = *rig.Open(*session);
  ASSERT_TRUE(
      connection->Send(RequestOf({.number = 1, .lease_host = 1, .lease = 42}, 64), -1, kPatience)
          .ok());
  asked.get_future().wait();
  connection.reset();
  gone.set_value();
  rig.state.lookups->Stop();
  EXPECT_EQ(core.released_lease, 42u);
  EXPECT_EQ(rig.state.counters.undone_calls, 1u);
}

}  // namespace
}  // namespace cairn::cache
