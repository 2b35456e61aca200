// Goal: a ticket gives its bytes once, in time, to its own session, and whatever else happens at
// the bulk port costs a closed connection and a count. Method: a real daemon, and a port of its own
// with entries larger than any socket's buffer.
#include <array>
#include <future>
#include <numeric>

#include "cache/client/bulk_protocol.h"
#include "cache/service/bulk_server.h"
#include "cache/service/raw_client.h"
#include "cache/service/service_rig.h"

namespace cairn::cache {
namespace {

constexpr absl::Duration kLong = absl::Seconds(20);

std::unique_ptr<store::ByteStream> ConnectTo(int port) {
  auto stream = store::TcpStreams().Connect("127.0.0.1", static_cast<uint16_t>(port), kLong);
  EXPECT_TRUE(stream.ok()) << stream.status();
  return *std::move(stream);
}

void Show(store::ByteStream& stream, const std::string& ticket) {
  const BulkPreamble preamble = EncodeBulkPreamble(ticket);
  EXPECT_EQ(stream.Send(preamble, kLong).value_or(0), preamble.size());
}

// All that comes until the other side closes, or `most`.
std::vector<uint8_t> Read(store::ByteStream& stream, size_t most = SIZE_MAX) {
  std::vector<uint8_t> out, room(64 << 10);
  while (out.size() < most) {
    const auto got =
        stream.Receive(std::span(room).first(std::min(room.size(), most - out.size())), kLong);
    if (!got.ok()) {
      EXPECT_TRUE(absl::IsUnavailable(got.status())) << got.status();
      break;
    }
    out.insert(out.end(), room.begin(), room.begin() + static_cast<std::ptrdiff_t>(*got));
  }
  return out;
}

struct Tickets : testing::Test {
  Tickets() {
    writer = rig.Connect(rig.unix_target());
    chain = ChainOf(*writer, 2);
    PutAll(*writer, chain);
    for (const Digest& digest : chain) Append({digest, EntryKind::kRows});
    Append({chain.back(), EntryKind::kCheckpoint});
  }
  void Append(const EntryKey& key) {
    const auto payload = PayloadOf(key);
    expected.insert(expected.end(), payload.begin(), payload.end());
  }
  absl::StatusOr<std::string> Ask(RawClient& client) {
    CAIRN_ASSIGN_OR_RETURN(const std::vector<std::string> tickets, Ask(client, 0));
    EXPECT_EQ(tickets.size(), 1u);
    return tickets[0];
  }
  absl::StatusOr<std::vector<std::string>> Ask(RawClient& client, uint32_t streams) {
    v1::FetchRequest request;
    request.set_streams(streams);
    request.set_token(client.token);
    request.set_chain(EncodeChain(chain));
    request.set_checkpoint(true);
    request.set_deadline_millis(60'000);
    v1::BulkResponse answer;
    grpc::ClientContext context;
    const grpc::Status status = client.stub->FetchBulk(&context, request, &answer);
    if (!status.ok()) return FromGrpc(status);
    EXPECT_EQ(answer.head().rows_size(), 2);
    std::vector<std::string> tickets = {answer.ticket()};
    tickets.insert(tickets.end(), answer.more_tickets().begin(), answer.more_tickets().end());
    for (const std::string& ticket : tickets) EXPECT_EQ(ticket.size(), kTicketBytes);
    return tickets;
  }
  uint64_t BadTickets() { return rig.server->state().counters.bulk_bad_tickets; }

  ServiceRig rig;
  std::unique_ptr<CacheApi> writer;
  std::vector<Digest> chain;
  std::vector<uint8_t> expected;
};

TEST_F(Tickets, GiveTheBytesOnceOverAConnectionThatIsUsedAgain) {
  RawClient client(rig.tcp_target());
  const auto stream = ConnectTo(rig.server->bulk_port());
  std::string last;
  for (int i = 0; i < 3; ++i) {
    last = *Ask(client);
    Show(*stream, last);
    EXPECT_EQ(Read(*stream, expected.size()), expected);
    EXPECT_TRUE(Eventually([&] { return rig.core.Stat("open_leases") == 0; }));
  }
  EXPECT_EQ(rig.server->state().bulk_port->connections(), 1u);
  Show(*stream, last);
  EXPECT_TRUE(Read(*stream).empty());
  EXPECT_EQ(BadTickets(), 1u);
  EXPECT_EQ(rig.server->state().counters.bulk_transfers, 3u);
}

// Two rows of 2,148 bytes and a checkpoint of 5,120.
TEST_F(Tickets, ForStripesGiveEachItsEntriesAndHoldOneLease) {
  RawClient client(rig.tcp_target());
  const auto row = [&](size_t i) {
    return std::vector<uint8_t>(expected.begin() + ptrdiff_t(i * 2148),
                                expected.begin() + ptrdiff_t((i + 1) * 2148));
  };
  const std::vector<uint8_t> checkpoint(expected.begin() + 2 * 2148, expected.end());
  std::vector<uint8_t> both = row(0);
  both.insert(both.end(), checkpoint.begin(), checkpoint.end());
  const std::vector<std::vector<std::vector<uint8_t>>> stripes = {
      {expected}, {both, row(1)}, {row(0), row(1), checkpoint}};
  for (const uint32_t streams : {1u, 2u, 3u, 4u, 1000u}) {  // there are three entries
    const std::vector<std::string> tickets = *Ask(client, streams);
    ASSERT_EQ(tickets.size(), std::min(streams, 3u));
    EXPECT_EQ(rig.core.Stat("open_leases"), 1u);
    for (size_t i = tickets.size(); i-- > 0;) {
      EXPECT_EQ(rig.core.Stat("open_leases"), 1u);
      const auto stream = ConnectTo(rig.server->bulk_port());
      Show(*stream, tickets[i]);
      const std::vector<uint8_t>& stripe = stripes[tickets.size() - 1][i];
      EXPECT_EQ(Read(*stream, stripe.size()), stripe) << streams << " " << i;
    }
    EXPECT_TRUE(Eventually([&] { return rig.core.Stat("open_leases") == 0; }));
  }
  EXPECT_EQ(BadTickets(), 0u);
}

TEST_F(Tickets, WrongOldOrForeignOnesCloseTheConnection) {
  RawClient client(rig.tcp_target()), other(rig.tcp_target());
  auto stream = ConnectTo(rig.server->bulk_port());
  Show(*stream, std::string(kTicketBytes, 'x'));
  EXPECT_TRUE(Read(*stream).empty());
  EXPECT_EQ(BadTickets(), 1u);

  stream = ConnectTo(rig.server->bulk_port());
  BulkPreamble preamble = EncodeBulkPreamble(*Ask(client));
  preamble[kBulkMagicBytes] = kBulkVersion + 1;
  ASSERT_TRUE(stream->Send(preamble, kLong).ok());
  EXPECT_TRUE(Read(*stream).empty());
  EXPECT_EQ(BadTickets(), 2u);

  const std::string old = *Ask(client);
  rig.core.clock.Advance(kBulkTicketMax);
  stream = ConnectTo(rig.server->bulk_port());
  Show(*stream, old);
  EXPECT_TRUE(Read(*stream).empty());
  EXPECT_EQ(BadTickets(), 3u);
  EXPECT_TRUE(Eventually([&] { return rig.core.Stat("open_leases") == 0; }));

  stream = ConnectTo(rig.server->bulk_port());
  Show(*stream, *Ask(client));
  EXPECT_EQ(Read(*stream, expected.size()), expected);
  Show(*stream, *Ask(other));
  EXPECT_TRUE(Read(*stream).empty());
  EXPECT_EQ(BadTickets(), 4u);
}

TEST_F(Tickets, AreBoundedPerSessionAndEndWithIt) {
  RawClient other(rig.tcp_target());
  {
    RawClient client(rig.tcp_target());
    std::string last;
    for (size_t i = 0; i < kBulkTicketsPerSessionMax; ++i) last = *Ask(client);
    EXPECT_TRUE(absl::IsResourceExhausted(Ask(client).status()));
    EXPECT_TRUE(absl::IsResourceExhausted(Ask(client, 2).status()));
    EXPECT_TRUE(Ask(other).ok());
    // Those of the refused ones fall after their answers.
    EXPECT_TRUE(
        Eventually([&] { return rig.core.Stat("open_leases") == kBulkTicketsPerSessionMax + 1; }));
    const auto stream = ConnectTo(rig.server->bulk_port());
    Show(*stream, last);
    EXPECT_EQ(Read(*stream, expected.size()), expected);
    EXPECT_TRUE(Ask(client).ok());
  }
  EXPECT_TRUE(Eventually([&] { return rig.core.Stat("open_leases") == 1; }));
  EXPECT_TRUE(Eventually([&] { return rig.server->state().bulk_port->tickets().size() == 1; }));
}

TEST_F(Tickets, APlainProtobufClientReadsTheStreamToo) {
  RawClient client(rig.tcp_target());
  v1::FetchRequest request;
  request.set_token(client.token);
  request.set_chain(EncodeChain(chain));
  request.set_checkpoint(true);
  request.set_deadline_millis(20'000);
  for (const bool whole : {true, false}) {
    grpc::ClientContext context;
    context.set_deadline(gpr_time_from_millis(20'000, GPR_TIMESPAN));
    const auto reader = client.stub->FetchStream(&context, request);
    v1::FetchChunk chunk;
    ASSERT_TRUE(reader->Read(&chunk));
    EXPECT_EQ(chunk.head().rows_size(), 2);
    std::vector<uint8_t> got;
    while (whole && reader->Read(&chunk)) {
      ASSERT_EQ(chunk.chunk_case(), v1::FetchChunk::kData);
      got.insert(got.end(), chunk.data().begin(), chunk.data().end());
    }
    if (!whole) context.TryCancel();
    EXPECT_EQ(reader->Finish().ok(), whole);
    if (whole) {
      EXPECT_EQ(got, expected);
    }
    EXPECT_TRUE(Eventually([&] { return rig.core.Stat("open_leases") == 0; }));
  }
}

TEST_F(Tickets, AClientWhosePortIsGoneFetchesByStream) {
  const auto cache = rig.Connect(rig.tcp_target());
  rig.server->state().bulk_port->Stop();
  for (int i = 0; i < 2; ++i) {
    const auto prefix = cache->Fetch({.chain = chain});
    ASSERT_TRUE(prefix.ok()) << prefix.status();
    ExpectPrefix(**prefix, chain);
  }
  const auto counts = cache->Stats();
  ASSERT_TRUE(counts.ok()) << counts.status();
  std::map<std::string, uint64_t> by_name;
  for (const NamedCount& count : *counts) by_name[count.name] = count.value;
  EXPECT_EQ(by_name["client_bulk_failures"], 1u);  // asked once, and not again
  EXPECT_EQ(by_name["client_bulk_transfers"], 0u);
}

// A port without a daemon around it, and an entry that no socket's buffer holds.
struct LargeTransfer : testing::Test {
  explicit LargeTransfer(absl::Duration stall = absl::Minutes(1)) : payload(64 << 20) {
    std::iota(payload.begin(), payload.end(), uint8_t{3});
    auto started = BulkServer::Start({.listen = "127.0.0.1:0", .stall_max = stall}, state,
                                     core.clock, SystemRandom(), store::TcpStreams());
    EXPECT_TRUE(started.ok()) << started.status();
    server = std::move(*started);
    session = state.sessions.Add(core.session, false);
  }
  ~LargeTransfer() override {
    server.reset();
    EXPECT_TRUE(state.work.AwaitNone(std::chrono::seconds(20)));
  }
  // Begins to draw; `held` is gone when the lease is.
  std::unique_ptr<store::ByteStream> Begin() {
    LeasedPrefix prefix;
    prefix.rows.push_back({{}, 0, payload, {}});
    auto bytes = std::make_shared<const LeasedBytes>(state, session, std::move(prefix));
    held = bytes;
    const auto ticket = server->tickets().Issue(std::move(bytes), 1, absl::Seconds(60));
    EXPECT_TRUE(ticket.ok()) << ticket.status();
    auto stream = ConnectTo(server->port());
    Show(*stream, ticket->front());
    std::array<uint8_t, 1> first;
    EXPECT_TRUE(stream->Receive(first, kLong).ok());
    return stream;
  }
  std::vector<uint8_t> payload;
  CoreRig core;
  ServiceState state{*core.core, SystemRandom(), "test", ""};
  std::unique_ptr<BulkServer> server;
  std::shared_ptr<ClientSession> session;
  std::weak_ptr<const LeasedBytes> held;
};
struct StuckReader : LargeTransfer {
  StuckReader() : LargeTransfer(absl::Milliseconds(20)) {}
};

TEST_F(LargeTransfer, ArrivesWholeAndLetsGoAfterTheLastByte) {
  const auto stream = Begin();
  EXPECT_FALSE(held.expired());
  const std::vector<uint8_t> rest = Read(*stream, payload.size() - 1);
  EXPECT_TRUE(std::equal(rest.begin(), rest.end(), payload.begin() + 1, payload.end()));
  EXPECT_TRUE(Eventually([&] { return held.expired(); }));
  EXPECT_EQ(state.counters.bulk_transfers, 1u);
  EXPECT_EQ(state.counters.sent_bytes, payload.size());
}

TEST_F(StuckReader, IsCutOffAndItsLeaseFreed) {
  const auto stream = Begin();
  EXPECT_TRUE(Eventually([&] { return held.expired(); }));
  EXPECT_LT(Read(*stream).size(), payload.size() - 1);
  EXPECT_EQ(state.counters.bulk_cut_transfers, 1u);
}

TEST_F(LargeTransfer, ASessionsEndEndsIt) {
  const auto stream = Begin();
  const auto stranger = state.sessions.Add(core.session, false);
  server->EndSession(*stranger);
  EXPECT_FALSE(held.expired());
  server->EndSession(*session);
  EXPECT_TRUE(Eventually([&] { return held.expired(); }));
  EXPECT_LT(Read(*stream).size(), payload.size() - 1);
}

TEST_F(LargeTransfer, ASlowReaderHasUntilTheDeadline) {
  const auto stream = Begin();
  core.clock.Advance(absl::Seconds(61));
  EXPECT_LT(Read(*stream).size(), payload.size() - 1);
  EXPECT_TRUE(Eventually([&] { return held.expired(); }));
  EXPECT_EQ(state.counters.bulk_cut_transfers, 1u);
}

TEST_F(LargeTransfer, AStopEndsIt) {
  const auto stream = Begin();
  server->Stop();
  EXPECT_TRUE(held.expired());
}

TEST_F(LargeTransfer, ATicketOfAnEndedSessionGivesNothing) {
  LeasedPrefix prefix;
  prefix.rows.push_back({{}, 0, payload, {}});
  const auto ticket = server->tickets().Issue(
      std::make_shared<const LeasedBytes>(state, session, std::move(prefix)), 1, absl::Seconds(60));
  state.sessions.Remove(session->token());
  const auto stream = ConnectTo(server->port());
  Show(*stream, ticket->front());
  EXPECT_TRUE(Read(*stream).empty());
  EXPECT_EQ(state.counters.bulk_bad_tickets, 1u);
}

TEST_F(LargeTransfer, StripesAreForThoseWhoAskWhileConnectionsAreFree) {
  LeasedPrefix prefix;
  for (int i = 0; i < 3; ++i) prefix.rows.push_back({{}, 0, payload, {}});
  const LeasedBytes bytes(state, session, std::move(prefix));
  LeasedPrefix little;
  for (int i = 0; i < 3; ++i) {
    little.rows.push_back({{}, 0, std::span(payload).first(kBulkStripeBytesMin / 2), {}});
  }
  EXPECT_EQ(server->StripesOf(bytes, 0), 1u);
  EXPECT_EQ(server->StripesOf(bytes, 2), 2u);
  EXPECT_EQ(server->StripesOf(bytes, UINT32_MAX), 3u);
  EXPECT_EQ(server->StripesOf(LeasedBytes(state, session, std::move(little)), 2), 1u);
  std::vector<std::unique_ptr<store::ByteStream>> open;
  while (open.size() < kBulkConnectionsMax / 2) open.push_back(ConnectTo(server->port()));
  EXPECT_TRUE(Eventually([&] { return server->connections() == kBulkConnectionsMax / 2; }));
  EXPECT_EQ(server->StripesOf(bytes, 2), 1u);
}

TEST_F(LargeTransfer, ConnectionsOverTheBoundAreClosedAtOnce) {
  std::vector<std::unique_ptr<store::ByteStream>> open;
  for (size_t i = 0; i < kBulkConnectionsMax; ++i) open.push_back(ConnectTo(server->port()));
  EXPECT_TRUE(Eventually([&] { return server->connections() == kBulkConnectionsMax; }));
  const auto one_more = ConnectTo(server->port());
  EXPECT_TRUE(Read(*one_more).empty());
  EXPECT_EQ(state.counters.bulk_refused_connections, 1u);
}

}  // namespace
}  // namespace cairn::cache
