// Goal: what is put is found and comes back byte for byte; what is wrong is refused by name. One
// thread, real tiers in memory, background writes off, so that each state is reached on purpose.
#include <gtest/gtest.h>

#include "cache/core/core_rig.h"
#include "cache/core/local_cache.h"

namespace cairn::cache {
namespace {

constexpr EntryKind kRows = EntryKind::kRows, kCheckpoint = EntryKind::kCheckpoint;

void ExpectNamed(const absl::Status& status, absl::StatusCode code, const std::string& name) {
  EXPECT_EQ(status.code(), code) << status;
  EXPECT_NE(std::string(status.message()).find(name), std::string::npos) << status;
}

TEST(Core, PutMatchFetch) {
  CoreRig rig;
  const std::vector<Digest> chain = rig.Chain(5);
  EXPECT_EQ(rig.core->Match(rig.session, chain)->rows_blocks, 0u);
  ASSERT_TRUE(rig.PutAll(chain).ok());
  const MatchResult match = *rig.core->Match(rig.session, chain);
  EXPECT_EQ(match.rows_blocks, 5u);
  EXPECT_EQ(match.rows_host_blocks, 5u);
  ASSERT_EQ(match.checkpoints.size(), 1u);
  EXPECT_EQ(match.checkpoints[0].blocks, 5u);
  EXPECT_EQ(match.checkpoints[0].tier, Tier::kHost);

  const LeasedPrefix prefix = *rig.Fetch(chain);
  ASSERT_EQ(prefix.rows.size(), 5u);
  ASSERT_TRUE(prefix.checkpoint.has_value());
  EXPECT_EQ(prefix.host_bytes, 5 * 2148u + 5120u);
  EXPECT_EQ(prefix.disk_bytes, 0u);
  EXPECT_NE(prefix.lease, 0u);
  EXPECT_TRUE(rig.core->Release(rig.session, prefix.lease).ok());
  EXPECT_TRUE(absl::IsAborted(rig.core->Release(rig.session, prefix.lease)));
}

TEST(Core, SharedPrefixIsFoundUpToWhereTextsPart) {
  CoreRig rig;
  ASSERT_TRUE(rig.PutAll(rig.Chain(6)).ok());
  EXPECT_EQ(rig.Rows(rig.Chain(6, 0, 4, 1)), 4u);
  EXPECT_EQ(rig.Rows(rig.Chain(6, 0, 0, 1)), 0u);
  EXPECT_EQ(rig.Rows(rig.Chain(9)), 6u);
  // No checkpoint at 4: the rows alone do not resume.
  EXPECT_TRUE(rig.core->Match(rig.session, rig.Chain(6, 0, 4, 1))->checkpoints.empty());
}

TEST(Core, MatchNamesAtMostSixteenCheckpointsDeepestFirst) {
  CoreRig rig({.host_units = 128});
  const std::vector<Digest> chain = rig.Chain(20);
  for (size_t i = 0; i < chain.size(); ++i) {
    ASSERT_TRUE(rig.Put(chain, i, kRows).ok());
    ASSERT_TRUE(rig.Put(chain, i, kCheckpoint).ok());
  }
  const MatchResult match = *rig.core->Match(rig.session, chain);
  ASSERT_EQ(match.checkpoints.size(), 16u);
  for (uint32_t i = 0; i < 16; ++i) EXPECT_EQ(match.checkpoints[i].blocks, 20 - i);
}

TEST(Core, ReserveSaysExistsGoOrWait) {
  CoreRig rig;
  const SessionId other = rig.Open();
  const std::vector<Digest> chain = rig.Chain(3);
  ASSERT_TRUE(rig.Put(chain, 0, kRows).ok());
  std::vector<ReserveItem> items;
  for (size_t i = 0; i < 3; ++i) items.push_back(rig.Item(chain, i, kRows));
  auto mine = *rig.core->Reserve(rig.session, items, absl::ZeroDuration());
  EXPECT_EQ(mine[0].state, ReserveState::kExists);
  EXPECT_EQ(mine[1].state, ReserveState::kGo);
  EXPECT_EQ(mine[2].state, ReserveState::kGo);
  auto theirs = *rig.core->Reserve(other, items, absl::ZeroDuration());
  EXPECT_EQ(theirs[1].state, ReserveState::kWait);
  const uint64_t aborted[] = {mine[1].reservation};
  ASSERT_TRUE(rig.core->Abort(other, aborted).ok());  // not theirs: nothing happens
  theirs = *rig.core->Reserve(other, items, absl::ZeroDuration());
  EXPECT_EQ(theirs[1].state, ReserveState::kWait);
  ASSERT_TRUE(rig.core->Abort(rig.session, aborted).ok());
  theirs = *rig.core->Reserve(other, items, absl::ZeroDuration());
  EXPECT_EQ(theirs[1].state, ReserveState::kGo);
  EXPECT_EQ(theirs[2].state, ReserveState::kWait);
}

TEST(Core, CommitNeedsALiveReservationOfTheSameSession) {
  CoreRig rig;
  const SessionId other = rig.Open();
  const std::vector<Digest> chain = rig.Chain(1);
  const ReserveItem item = rig.Item(chain, 0, kRows);
  const uint64_t id = rig.Reserve(item);
  EXPECT_TRUE(absl::IsAborted(rig.CommitOne(id, item.key, false, other)));
  EXPECT_TRUE(absl::IsAborted(rig.CommitOne(id + 1, item.key)));
  EXPECT_TRUE(rig.CommitOne(id, item.key).ok());
  EXPECT_TRUE(absl::IsAborted(rig.CommitOne(id, item.key)));  // ended by the first
}

TEST(Core, ExpiredReservationCannotCommit) {
  CoreRig rig;
  const std::vector<Digest> chain = rig.Chain(1);
  const ReserveItem item = rig.Item(chain, 0, kRows);
  const uint64_t id = rig.Reserve(item);
  rig.clock.Advance(absl::Minutes(31));
  EXPECT_TRUE(absl::IsAborted(rig.CommitOne(id, item.key)));
  EXPECT_EQ(rig.Stat("reservations_expired"), 1u);
  EXPECT_EQ(rig.Stat("open_reservations"), 0u);
}

TEST(Core, CommitRefusesBytesThatDoNotMatch) {
  CoreRig rig;
  const std::vector<Digest> chain = rig.Chain(1);
  const ReserveItem item = rig.Item(chain, 0, kRows);
  std::vector<uint8_t> payload = PayloadOf(item.key);
  const std::vector<EntryPart> parts = PartsOf(kRows, payload);
  for (const size_t flipped : {size_t{0}, size_t{2047}, size_t{2048}, size_t{2147}}) {
    payload[flipped] ^= 1;
    const CoreCommitItem commit{rig.Reserve(item), payload, parts};
    const auto statuses = *rig.core->Commit(rig.session, {&commit, 1}, false);
    ExpectNamed(statuses[0], absl::StatusCode::kDataLoss, flipped < 2048 ? "parts[0]" : "parts[1]");
    payload[flipped] ^= 1;
    EXPECT_EQ(rig.Rows(chain), 0u);
  }
  EXPECT_EQ(rig.Stat("commit_mismatched_entries"), 4u);
  EXPECT_EQ(rig.Stat("host_used_bytes"), 0u);
  EXPECT_EQ(rig.Stat("open_reservations"), 0u);
}

TEST(Core, CommitRefusesWrongShapes) {
  CoreRig rig;
  const std::vector<Digest> chain = rig.Chain(1);
  const ReserveItem item = rig.Item(chain, 0, kRows);
  const std::vector<uint8_t> payload = PayloadOf(item.key);
  const std::vector<EntryPart> parts = PartsOf(kRows, payload);
  const auto commit = [&](std::span<const uint8_t> bytes, std::vector<EntryPart> p) {
    const CoreCommitItem c{rig.Reserve(item), bytes, std::move(p)};
    return (*rig.core->Commit(rig.session, {&c, 1}, false))[0];
  };
  ExpectNamed(commit(payload, {parts[0]}), absl::StatusCode::kInvalidArgument, "parts: 1");
  ExpectNamed(commit(payload, {parts[0], {101, parts[1].xxh3}}), absl::StatusCode::kInvalidArgument,
              "parts[1].bytes: 101");
  ExpectNamed(commit(std::span(payload).first(2147), parts), absl::StatusCode::kInvalidArgument,
              "payload: 2147");
  EXPECT_TRUE(commit(payload, parts).ok());
}

TEST(Core, OrphansAreRefused) {
  CoreRig rig;
  const std::vector<Digest> chain = rig.Chain(3);
  ExpectNamed(rig.Put(chain, 1, kRows), absl::StatusCode::kFailedPrecondition, "parent");
  ExpectNamed(rig.Put(chain, 0, kCheckpoint), absl::StatusCode::kFailedPrecondition, "rows");
  EXPECT_EQ(rig.Stat("index_blocks"), 0u);
  // In one batch the order of the items does not matter.
  std::vector<CoreCommitItem> batch;
  std::vector<std::vector<uint8_t>> payloads;
  for (const auto& [i, kind] : {std::pair{2, kCheckpoint}, {2, kRows}, {1, kRows}, {0, kRows}}) {
    const ReserveItem item = rig.Item(chain, static_cast<size_t>(i), kind);
    payloads.push_back(PayloadOf(item.key));
    batch.push_back({rig.Reserve(item), payloads.back(), PartsOf(kind, payloads.back())});
  }
  const auto statuses = *rig.core->Commit(rig.session, batch, false);
  for (const absl::Status& status : statuses) EXPECT_TRUE(status.ok()) << status;
  EXPECT_TRUE(rig.Fetch(chain)->checkpoint.has_value());
}

TEST(Core, OneBadItemDoesNotHurtTheOthers) {
  CoreRig rig;
  const std::vector<Digest> chain = rig.Chain(3);
  std::vector<CoreCommitItem> batch;
  std::vector<std::vector<uint8_t>> payloads;
  for (size_t i = 0; i < 3; ++i) {
    const ReserveItem item = rig.Item(chain, i, kRows);
    payloads.push_back(PayloadOf(item.key));
    batch.push_back({rig.Reserve(item), payloads.back(), PartsOf(kRows, payloads.back())});
  }
  payloads[1][7] ^= 4;
  const auto statuses = *rig.core->Commit(rig.session, batch, false);
  EXPECT_TRUE(statuses[0].ok());
  EXPECT_TRUE(absl::IsDataLoss(statuses[1]));
  EXPECT_TRUE(absl::IsFailedPrecondition(statuses[2]));  // its parent was refused
  EXPECT_EQ(rig.Rows(chain), 1u);
}

TEST(Core, TenantsAndLayoutsNeverMeet) {
  CoreRig rig;
  const SessionId a = rig.Open("a"), b = rig.Open("b");
  EXPECT_NE(rig.roots.at(a), rig.roots.at(b));
  const std::vector<Digest> chain = rig.Chain(2, 0, SIZE_MAX, 0, a);
  ASSERT_TRUE(rig.PutAll(chain, false, a).ok());
  EXPECT_EQ(rig.Rows(rig.Chain(2, 0, SIZE_MAX, 0, b), b), 0u);  // the same text
  // Even a stolen digest opens nothing.
  EXPECT_EQ(rig.Rows(chain, b), 0u);
  EXPECT_TRUE(rig.Fetch(chain, b)->rows.empty());
  const ReserveItem stolen = rig.Item(chain, 0, kRows, b);
  ExpectNamed(rig.core->Reserve(b, {&stolen, 1}, absl::ZeroDuration()).status(),
              absl::StatusCode::kInvalidArgument, "items[0].key.digest");
  Registration registration;
  NamespaceSpec spec = RigSpec("a");
  spec.layout.numerics = "kvq";
  ASSERT_TRUE(rig.core->OpenSession(spec, &registration).ok());
  EXPECT_NE(registration.root, rig.roots.at(a));
}

TEST(Core, SecretsMustDiffer) {
  CoreRig rig;
  CacheCore::Options options;
  options.default_tenant_key = "x";
  options.tenant_keys = {{"t", "x"}};
  ExpectNamed(CacheCore::Create(options, *rig.host, nullptr, rig.clock, rig.random).status(),
              absl::StatusCode::kInvalidArgument, "\"t\"");
}

TEST(Core, RegistrationIsRefusedByName) {
  CoreRig rig;
  Registration registration;
  NamespaceSpec spec = RigSpec();
  spec.layout.version = kLayoutVersion + 1;
  const absl::Status version = rig.core->OpenSession(spec, &registration).status();
  ExpectNamed(version, absl::StatusCode::kFailedPrecondition, absl::StrCat(kLayoutVersion + 1));
  ExpectNamed(version, absl::StatusCode::kFailedPrecondition, absl::StrCat("is ", kLayoutVersion));
  spec = RigSpec("nobody");
  ExpectNamed(rig.core->OpenSession(spec, &registration).status(),
              absl::StatusCode::kPermissionDenied, "tenant");
  spec = RigSpec(std::string(kTenantBytesMax + 1, 't'));
  ExpectNamed(rig.core->OpenSession(spec, &registration).status(),
              absl::StatusCode::kInvalidArgument, "tenant");
  spec = RigSpec();
  spec.layout.components.clear();
  ExpectNamed(rig.core->OpenSession(spec, &registration).status(),
              absl::StatusCode::kInvalidArgument, "layout.components");
}

TEST(Core, BoundsAreRefusedByName) {
  CoreRig rig;
  const std::vector<Digest> long_chain(kBlocksPerPrefixMax + 1);
  const auto invalid = absl::StatusCode::kInvalidArgument;
  ExpectNamed(rig.core->Match(rig.session, long_chain).status(), invalid, "chain");
  ExpectNamed(rig.core->Fetch(rig.session, {.chain = long_chain}).status(), invalid, "chain");
  const std::vector<ReserveItem> many(kReservationsPerSessionMax + 1);
  ExpectNamed(rig.core->Reserve(rig.session, many, {}).status(), invalid, "items");
  ExpectNamed(rig.core->Reserve(rig.session, {}, absl::Minutes(2)).status(), invalid, "wait");
  const std::vector<CoreCommitItem> commits(kEntriesPerCommitMax + 1);
  ExpectNamed(rig.core->Commit(rig.session, commits, false).status(), invalid, "items");
  const std::vector<uint64_t> ids(kReservationsPerSessionMax + 1);
  ExpectNamed(rig.core->Abort(rig.session, ids), invalid, "reservations");

  const std::vector<Digest> chain = rig.Chain(2);
  const auto reserve = [&](ReserveItem item) {
    return rig.core->Reserve(rig.session, {&item, 1}, absl::ZeroDuration()).status();
  };
  ReserveItem item = rig.Item(chain, 1, kRows);
  item.index = kBlocksPerPrefixMax;
  ExpectNamed(reserve(item), invalid, "items[0].index");
  item = rig.Item(chain, 1, kRows);
  item.key.kind = static_cast<EntryKind>(9);
  ExpectNamed(reserve(item), invalid, "items[0].key.kind");
  item = rig.Item(chain, 0, kRows);
  item.index = 1;
  ExpectNamed(reserve(item), invalid, "items[0].parent");
  item = rig.Item(chain, 1, kRows);
  item.index = 0;
  ExpectNamed(reserve(item), invalid, "items[0].parent");
  ASSERT_TRUE(rig.PutAll(chain).ok());
  item = rig.Item(chain, 1, kRows);
  item.index = 2;  // known with index 1
  ExpectNamed(reserve(item), invalid, "items[0].key.digest");
}

TEST(Core, CountsOfHoldsAreBounded) {
  CoreRig rig;
  const std::vector<Digest> chain = rig.Chain(1);
  ASSERT_TRUE(rig.PutAll(chain).ok());
  for (uint32_t i = 0; i < kLeasesPerSessionMax; ++i) ASSERT_TRUE(rig.Fetch(chain).ok());
  ExpectNamed(rig.Fetch(chain).status(), absl::StatusCode::kResourceExhausted, "leases");

  std::vector<ReserveItem> items;
  const std::vector<Digest> far = rig.Chain(kReservationsPerSessionMax, 1);
  for (size_t i = 0; i < far.size(); ++i) items.push_back(rig.Item(far, i, kRows));
  ASSERT_TRUE(rig.core->Reserve(rig.session, items, absl::ZeroDuration()).ok());
  const ReserveItem more = rig.Item(rig.Chain(1, 2), 0, kRows);
  ExpectNamed(rig.core->Reserve(rig.session, {&more, 1}, absl::ZeroDuration()).status(),
              absl::StatusCode::kResourceExhausted, "items");

  std::vector<SessionId> sessions;
  for (uint32_t i = 1; i < kSessionsMax; ++i) sessions.push_back(rig.Open());
  Registration registration;
  ExpectNamed(rig.core->OpenSession(RigSpec(), &registration).status(),
              absl::StatusCode::kResourceExhausted, "sessions");
  rig.core->CloseSession(sessions[0]);
  EXPECT_TRUE(rig.core->OpenSession(RigSpec(), &registration).ok());
}

TEST(Core, AVanishedClientHoldsNothing) {
  CoreRig rig;
  const SessionId gone = rig.Open();
  const std::vector<Digest> chain = rig.Chain(3);
  ASSERT_TRUE(rig.PutAll(chain).ok());
  ASSERT_TRUE(rig.Fetch(chain, gone).ok());
  const ReserveItem item = rig.Item(rig.Chain(1, 1), 0, kRows);
  ASSERT_NE(rig.Reserve(item, gone), 0u);
  EXPECT_NE(rig.Stat("host_pinned_bytes"), 0u);
  rig.core->CloseSession(gone);
  EXPECT_EQ(rig.Stat("host_pinned_bytes"), 0u);
  EXPECT_EQ(rig.Stat("open_leases"), 0u);
  EXPECT_EQ(rig.Stat("open_reservations"), 0u);
  EXPECT_EQ(rig.Stat("sessions_ended_holding"), 1u);
  EXPECT_NE(rig.Reserve(item), 0u);
  EXPECT_TRUE(absl::IsAborted(rig.core->Match(gone, chain).status()));
  EXPECT_TRUE(absl::IsAborted(rig.core->Fetch(gone, {.chain = chain}).status()));
}

TEST(Core, LeasesEndAtTheirDeadline) {
  CoreRig rig;
  const std::vector<Digest> chain = rig.Chain(2);
  ASSERT_TRUE(rig.PutAll(chain).ok());
  const LeaseId lease = rig.Fetch(chain)->lease;
  rig.clock.Advance(absl::Minutes(9));
  EXPECT_NE(rig.Stat("host_pinned_bytes"), 0u);
  rig.clock.Advance(absl::Minutes(2));
  EXPECT_EQ(rig.Stat("host_pinned_bytes"), 0u);
  EXPECT_EQ(rig.Stat("leases_expired"), 1u);
  EXPECT_TRUE(absl::IsAborted(rig.core->Release(rig.session, lease)));
}

TEST(LocalCache, TheWholeWay) {
  CoreRig rig;
  auto cache = *OpenLocalCache(*rig.core, RigSpec());
  EXPECT_TRUE(cache->registration().mapped);
  EXPECT_EQ(cache->registration().root, rig.roots.at(rig.session));
  const std::vector<Digest> chain = rig.Chain(1);
  const ReserveItem items[] = {rig.Item(chain, 0, kRows), rig.Item(chain, 0, kCheckpoint)};
  const auto reserved = *cache->Reserve(items, absl::ZeroDuration());
  std::vector<std::unique_ptr<StagingBuffer>> staging;
  std::vector<CommitItem> commits;
  for (size_t i = 0; i < 2; ++i) {
    const std::vector<uint8_t> payload = PayloadOf(items[i].key);
    staging.push_back(*cache->Stage(payload.size()));
    EXPECT_EQ(staging[i]->bytes.size(), RoundUpToIo(payload.size()));
    std::copy(payload.begin(), payload.end(), staging[i]->bytes.begin());
    commits.push_back(
        {reserved[i].reservation, staging[i].get(), PartsOf(items[i].key.kind, payload)});
  }
  const auto statuses = *cache->Commit(commits, true);
  for (const absl::Status& s : statuses) EXPECT_TRUE(s.ok()) << s;
  EXPECT_EQ(cache->Match(chain)->rows_blocks, 1u);
  auto prefix = *cache->Fetch({.chain = chain});
  ASSERT_EQ(prefix->rows.size(), 1u);
  ASSERT_TRUE(prefix->checkpoint.has_value());
  EXPECT_EQ(prefix->copied_bytes, 0u);
  const std::vector<uint8_t> expected = PayloadOf(items[1].key);
  EXPECT_TRUE(std::equal(expected.begin(), expected.end(), prefix->checkpoint->payload.begin()));
  EXPECT_EQ(rig.Stat("open_leases"), 1u);
  prefix.reset();
  EXPECT_EQ(rig.Stat("open_leases"), 0u);
  EXPECT_TRUE(absl::IsInvalidArgument(cache->Stage(0).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(cache->Stage(kEntryBytesMax + 1).status()));
  const CommitItem nothing{1, nullptr, {}};
  EXPECT_TRUE(absl::IsAborted((*cache->Commit({&nothing, 1}, false))[0]));
  cache.reset();
  EXPECT_EQ(rig.Stat("open_sessions"), 1u);
}

}  // namespace
}  // namespace cairn::cache
