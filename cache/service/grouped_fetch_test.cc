// Goal: a prefix that is fetched in groups is, once it has come, what a whole one is, by both
// wires; what is wrong with it is found at its group; whoever drops it early is rid of it. Method:
// a real daemon and real sockets.
#include "cache/service/raw_client.h"
#include "cache/service/service_rig.h"

namespace cairn::cache {
namespace {

// Rows have two parts, of 2048 and 100 bytes, a checkpoint one.
const std::vector<PartGroup> kGroups = {{1, 0}, {1, 1}, {2, 1}};

// Connections of the bulk port; 0: by gRPC.
class GroupedFetch : public testing::TestWithParam<uint32_t> {
 protected:
  GroupedFetch() {
    const auto writer = rig_.Connect(rig_.unix_target());
    chain_ = ChainOf(*writer, 3);
    PutAll(*writer, chain_);
    cache_ = Connect();
  }
  std::unique_ptr<CacheApi> Connect() const {
    RemoteCacheOptions options = PatientOptions();
    options.bulk = GetParam() > 0;
    if (options.bulk) options.bulk_streams = GetParam();
    return rig_.Connect(rig_.tcp_target(), options);
  }
  std::unique_ptr<FetchedPrefix> Fetch(std::span<const Digest> chain,
                                       std::span<const PartGroup> groups, bool checkpoint = true) {
    auto prefix = cache_->Fetch({.chain = chain, .checkpoint = checkpoint, .groups = groups});
    EXPECT_TRUE(prefix.ok()) << prefix.status();
    return *std::move(prefix);
  }

  ServiceRig rig_{{.host_units = 4096, .disk_bytes = 0}};
  std::vector<Digest> chain_;
  std::unique_ptr<CacheApi> cache_;
};

INSTANTIATE_TEST_SUITE_P(ByStreamAndBulk, GroupedFetch, testing::Values(0u, 1u, 2u, 5u));

TEST_P(GroupedFetch, GivesTheSameBytes) {
  const std::vector<std::vector<PartGroup>> all = {
      {{2, 1}},                   // no groups to speak of
      {{1, 0}, {2, 1}},           //
      {{1, 1}, {2, 1}},           //
      kGroups,                    //
      {{0, 1}, {1, 1}, {2, 1}},   // the checkpoint first
      {{2, 0}, {2, 1}},           // and last
      {{0, 0}, {1, 1}, {2, 1}}};  // nothing in the first
  for (size_t blocks = 1; blocks <= chain_.size(); ++blocks) {
    const auto chain = std::span(chain_).first(blocks);
    for (const auto& groups : all) {
      const bool whole = blocks == chain_.size();
      const auto prefix = Fetch(chain, groups, whole);
      for (size_t i = 0; i <= groups.size(); ++i) EXPECT_TRUE(prefix->Await(i).ok());
      EXPECT_TRUE(prefix->arrival().ended);
      EXPECT_EQ(prefix->arrival().share, 1);
      EXPECT_EQ(prefix->copied_bytes, blocks * 2148u + (whole ? 5120u : 0u));
      if (whole) {
        ExpectPrefix(*prefix, chain_);
      } else {
        ASSERT_EQ(prefix->rows.size(), blocks);
        for (size_t i = 0; i < blocks; ++i) {
          ExpectView(prefix->rows[i], {chain_[i], EntryKind::kRows});
        }
      }
    }
  }
  EXPECT_TRUE(Eventually([&] { return rig_.core.Stat("open_leases") == 0; }));
  EXPECT_EQ(StatOf(*cache_, "client_bulk_failures"), 0u);
}

TEST_P(GroupedFetch, AMissIsAValue) {
  const auto prefix = Fetch(ChainOf(*cache_, 2, /*salt=*/7), kGroups);
  EXPECT_TRUE(prefix->rows.empty() && !prefix->checkpoint.has_value());
  EXPECT_TRUE(prefix->Await(kGroups.size()).ok());
}

TEST_P(GroupedFetch, GroupsThatCannotBeAreRefused) {
  const std::vector<PartGroup> half = {{1, 0}, {1, 1}};
  const auto refused = cache_->Fetch({.chain = chain_, .groups = half});
  EXPECT_TRUE(absl::IsInvalidArgument(refused.status())) << refused.status();
}

TEST_P(GroupedFetch, AWrongByteIsFoundAtItsGroup) {
  const auto leased = rig_.core.Fetch(chain_, rig_.core.session);
  ASSERT_TRUE(leased.ok()) << leased.status();
  // The daemon's own memory, in this process.
  auto* const rows = const_cast<uint8_t*>(leased->rows[1].payload.data());
  rows[2048 + 99] ^= 1;
  const auto prefix = Fetch(chain_, kGroups);
  EXPECT_TRUE(absl::IsDataLoss(prefix->Await(3)));
  EXPECT_TRUE(prefix->arrival().ended);
  EXPECT_FALSE(prefix->verified);
  rows[0] ^= 1;
  const auto sooner = Fetch(chain_, kGroups);
  EXPECT_TRUE(absl::IsDataLoss(sooner->Await(1)));
  EXPECT_FALSE(sooner->verified);
}

TEST_P(GroupedFetch, WhoeverDropsItIsRidOfItAndTheDaemonToo) {
  for (int i = 0; i < 20; ++i) Fetch(chain_, kGroups).reset();
  EXPECT_TRUE(Eventually([&] { return rig_.core.Stat("open_leases") == 0; }));
  const auto after = Fetch(chain_, kGroups);
  EXPECT_TRUE(after->Await(3).ok());
  ExpectPrefix(*after, chain_);
}

// The session, and the daemon's connections with it, may end first.
TEST_P(GroupedFetch, OutlivesItsCache) {
  const auto prefix = Fetch(chain_, kGroups);
  cache_.reset();
  if (prefix->Await(3).ok()) ExpectPrefix(*prefix, chain_);
  EXPECT_TRUE(prefix->arrival().ended);
}

// What goes over the wire, as any client sees it.
TEST(GroupedFetchOnTheWire, SaysWhetherTheBytesAreGrouped) {
  ServiceRig rig;
  const auto writer = rig.Connect(rig.unix_target());
  const auto chain = ChainOf(*writer, 2);
  PutAll(*writer, chain);
  RawClient client(rig.tcp_target());
  v1::FetchRequest request;
  request.set_token(client.token);
  request.set_chain(EncodeChain(chain));
  request.set_checkpoint(true);
  request.set_deadline_millis(60'000);
  const std::vector<uint8_t> one = PayloadOf({chain[0], EntryKind::kRows});
  const std::vector<uint8_t> two = PayloadOf({chain[1], EntryKind::kRows});
  const std::vector<uint8_t> end = PayloadOf({chain[1], EntryKind::kCheckpoint});
  const auto read = [&] {
    grpc::ClientContext context;
    context.set_deadline(gpr_time_from_millis(20'000, GPR_TIMESPAN));
    const auto stream = client.stub->FetchStream(&context, request);
    v1::FetchChunk chunk;
    EXPECT_TRUE(stream->Read(&chunk) && chunk.has_head());
    EXPECT_EQ(chunk.head().grouped(), request.groups_size() > 0);
    std::vector<std::string> chunks;
    while (stream->Read(&chunk)) chunks.push_back(chunk.data());
    EXPECT_TRUE(stream->Finish().ok());
    return chunks;
  };
  const auto text = [](std::initializer_list<std::span<const uint8_t>> pieces) {
    std::string out;
    for (const auto& piece : pieces) out.append(piece.begin(), piece.end());
    return out;
  };
  // One chunk an entry, as ever; or as many pieces in one as there is room for.
  EXPECT_EQ(read(), (std::vector<std::string>{text({one}), text({two}), text({end})}));
  v1::GroupEnd* group = request.add_groups();
  group->set_rows_bytes(7);
  group->set_checkpoint_bytes(5000);
  const auto rest = [](const std::vector<uint8_t>& of, size_t from) {
    return std::span(of).subspan(from);
  };
  EXPECT_EQ(read(),
            (std::vector<std::string>{
                text({std::span(one).first(7), std::span(two).first(7), std::span(end).first(5000),
                      rest(one, 7), rest(two, 7), rest(end, 5000)})}));
}

}  // namespace
}  // namespace cairn::cache
