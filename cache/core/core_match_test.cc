// Goal: a match leases the deepest resumable prefix when it costs nothing but look-ups, and else
// answers as a plain match does. Method: a small core whose host memory is filled and emptied.
#include "cache/core/core_rig.h"
#include "cache/core/local_cache.h"
#include "gmock/gmock.h"
#include "store/base/come_again.h"

namespace cairn::cache {
namespace {

TEST(MatchAndLease, LeasesRowsAndCheckpointInOneCall) {
  CoreRig rig;
  const auto chain = rig.Chain(6);
  ASSERT_TRUE(rig.PutAll(chain).ok());
  const auto longer = rig.Chain(9);  // the same six first
  const CoreMatch match = *rig.core->MatchAndLease(rig.session, longer);
  EXPECT_EQ(match.found.rows_blocks, 6u);
  EXPECT_EQ(match.found.rows_host_blocks, 6u);
  ASSERT_EQ(match.found.checkpoints.size(), 1u);
  ASSERT_TRUE(match.leased.has_value());
  CoreRig::ExpectTrue(*match.leased, chain);
  EXPECT_EQ(match.leased->host_bytes, 6 * 2148u + 5120u);
  EXPECT_EQ(match.leased->disk_bytes, 0u);
  EXPECT_EQ(rig.Stat("open_leases"), 1u);
  EXPECT_EQ(rig.Stat("match_leased_calls"), 1u);
  EXPECT_EQ(rig.Stat("fetch_rows_entries"), 6u);
  EXPECT_EQ(rig.Stat("fetch_calls"), 0u);
}

TEST(MatchAndLease, EndsAtTheDeepestCheckpointNotAtTheLastRow) {
  CoreRig rig;
  const auto chain = rig.Chain(6);
  ASSERT_TRUE(rig.PutAll(std::span(chain).first(4)).ok());
  ASSERT_TRUE(rig.Put(chain, 4, EntryKind::kRows).ok());
  const CoreMatch match = *rig.core->MatchAndLease(rig.session, chain);
  EXPECT_EQ(match.found.rows_blocks, 5u);
  ASSERT_TRUE(match.leased.has_value());
  CoreRig::ExpectTrue(*match.leased, std::span(chain).first(4));
}

TEST(MatchAndLease, WithoutACheckpointThereIsNothingToLease) {
  CoreRig rig;
  const auto chain = rig.Chain(3);
  for (size_t i = 0; i < 3; ++i) ASSERT_TRUE(rig.Put(chain, i, EntryKind::kRows).ok());
  const CoreMatch match = *rig.core->MatchAndLease(rig.session, chain);
  EXPECT_EQ(match.found.rows_blocks, 3u);
  EXPECT_FALSE(match.leased.has_value());
  EXPECT_FALSE(rig.core->MatchAndLease(rig.session, {})->leased.has_value());
  EXPECT_EQ(rig.Stat("open_leases"), 0u);
}

TEST(MatchAndLease, ReadsNothingFromDisk) {
  CoreRig rig;
  const auto chain = rig.Chain(4);
  ASSERT_TRUE(rig.PutAll(chain).ok());
  rig.DropFromHost();
  // The rows come back to host memory, the checkpoint does not.
  ASSERT_EQ(rig.core->Fetch(rig.session, {.chain = chain, .checkpoint = false})->rows.size(), 4u);
  CoreMatch match = *rig.core->MatchAndLease(rig.session, chain);
  EXPECT_EQ(match.found.rows_host_blocks, 4u);
  EXPECT_EQ(match.found.checkpoints[0].tier, Tier::kDisk);
  EXPECT_FALSE(match.leased.has_value());
  ASSERT_TRUE(rig.Fetch(chain)->checkpoint.has_value());
  match = *rig.core->MatchAndLease(rig.session, chain);
  ASSERT_TRUE(match.leased.has_value());
  CoreRig::ExpectTrue(*match.leased, chain);
}

TEST(MatchAndLease, RowsOnDiskAloneAreNotLeased) {
  CoreRig rig;
  const auto chain = rig.Chain(4);
  ASSERT_TRUE(rig.PutAll(chain).ok());
  rig.DropFromHost();
  // The first half and, by another branch's end there, nothing of the second.
  ASSERT_EQ(rig.Fetch(std::span(chain).first(2))->rows.size(), 2u);
  const CoreMatch match = *rig.core->MatchAndLease(rig.session, chain);
  EXPECT_EQ(match.found.rows_blocks, 4u);
  EXPECT_EQ(match.found.rows_host_blocks, 2u);
  EXPECT_FALSE(match.leased.has_value());
}

TEST(MatchAndLease, ALeaseMayBeNamedByItsClientSoThatALostAnswerIsReleased) {
  CoreRig rig({.host_units = 64, .disk_bytes = 0});
  const auto chain = rig.Chain(3);
  ASSERT_TRUE(rig.PutAll(chain).ok());
  constexpr LeaseId kMatched = 77, kFetched = 78;
  EXPECT_EQ(rig.core->MatchAndLease(rig.session, chain, kMatched)->leased->lease, kMatched);
  EXPECT_EQ(rig.core->Fetch(rig.session, {.chain = chain, .lease = kFetched})->lease, kFetched);
  for (const absl::Status& in_use :
       {rig.core->MatchAndLease(rig.session, chain, kFetched).status(),
        rig.core->Fetch(rig.session, {.chain = chain, .lease = kMatched}).status()}) {
    EXPECT_TRUE(absl::IsInvalidArgument(in_use)) << in_use;
    EXPECT_THAT(std::string(in_use.message()), testing::StartsWith("lease: "));
  }
  EXPECT_EQ(rig.Stat("open_leases"), 2u);
  EXPECT_TRUE(rig.core->Release(rig.session, kMatched).ok());
  EXPECT_TRUE(rig.core->Release(rig.session, kFetched).ok());
  EXPECT_EQ(rig.Stat("host_pinned_bytes"), 0u);
  EXPECT_EQ(rig.core->Fetch(rig.session, {.chain = chain, .lease = kMatched})->lease, kMatched);
}

TEST(Leases, OfOneSessionMayNotHoldMostOfAnArenaThatIsNearlyAllHeld) {
  CoreRig rig({.host_units = 64, .disk_bytes = 0});
  const SessionId other = rig.Open();
  std::vector<LeaseId> held;
  for (int32_t i = 0; i < 6; ++i) {  // 8 units each
    const auto chain = rig.Chain(6, i);
    ASSERT_TRUE(rig.PutAll(chain).ok());
    held.push_back(rig.core->Fetch(rig.session, {.chain = chain})->lease);
  }
  const auto last = rig.Chain(6, 6);
  ASSERT_TRUE(rig.PutAll(last).ok());
  const absl::Status refused = rig.core->Fetch(rig.session, {.chain = last}).status();
  EXPECT_TRUE(absl::IsResourceExhausted(refused)) << refused;
  EXPECT_TRUE(ComeAgainOf(refused).has_value());
  EXPECT_FALSE(rig.core->MatchAndLease(rig.session, last)->leased.has_value());
  // Whoever holds nothing yet is served.
  const LeaseId others = rig.core->Fetch(other, {.chain = last})->lease;
  EXPECT_NE(others, 0u);
  EXPECT_TRUE(rig.core->Release(other, others).ok());
  ASSERT_TRUE(rig.core->Release(rig.session, held[0]).ok());
  ASSERT_TRUE(rig.core->Release(rig.session, held[1]).ok());
  EXPECT_TRUE(rig.core->MatchAndLease(rig.session, last)->leased.has_value());
}

TEST(Leases, OfOneSessionMayHoldASharedPrefixAnyNumberOfTimes) {
  CoreRig rig({.host_units = 64, .disk_bytes = 0});
  const auto chain = rig.Chain(6);
  ASSERT_TRUE(rig.PutAll(chain).ok());
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(rig.core->MatchAndLease(rig.session, chain)->leased.has_value()) << i;
  }
}

TEST(MatchAndLease, TheLeaseHoldsAndIsReleasedLikeAnyOther) {
  CoreRig rig({.host_units = 16, .disk_bytes = 0});
  const auto chain = rig.Chain(6), other = rig.Chain(12, 5);
  ASSERT_TRUE(rig.PutAll(chain).ok());
  const LeaseId lease = rig.core->MatchAndLease(rig.session, chain)->leased->lease;
  // 8 of 16 units are leased; 12 do not fit beside them.
  EXPECT_TRUE(absl::IsResourceExhausted(rig.PutAll(other)));
  EXPECT_EQ(rig.Rows(chain), 6u);
  EXPECT_TRUE(rig.core->Release(rig.session, lease).ok());
  EXPECT_TRUE(absl::IsAborted(rig.core->Release(rig.session, lease)));
  EXPECT_TRUE(rig.PutAll(other).ok());
}

TEST(MatchAndLease, AtTheLimitOfLeasesItIsAPlainMatch) {
  CoreRig rig;
  const auto chain = rig.Chain(2);
  ASSERT_TRUE(rig.PutAll(chain).ok());
  for (uint32_t i = 0; i < kLeasesPerSessionMax; ++i) {
    ASSERT_TRUE(rig.core->MatchAndLease(rig.session, chain)->leased.has_value());
  }
  const CoreMatch match = *rig.core->MatchAndLease(rig.session, chain);
  EXPECT_EQ(match.found.rows_blocks, 2u);
  EXPECT_FALSE(match.leased.has_value());
  EXPECT_EQ(rig.Stat("open_leases"), kLeasesPerSessionMax);
}

TEST(MatchAndLease, WhatTheTierLostIsNotLeased) {
  CoreRig rig;
  const auto chain = rig.Chain(3);
  ASSERT_TRUE(rig.PutAll(chain).ok());
  ASSERT_TRUE(rig.host->Erase({chain[1], EntryKind::kRows}));
  EXPECT_FALSE(rig.core->MatchAndLease(rig.session, chain)->leased.has_value());
  EXPECT_EQ(rig.host->stats().pinned_bytes, 0u);
}

TEST(MatchAndLease, AnotherTenantLeasesNothing) {
  CoreRig rig;
  const SessionId b = rig.Open("b");
  const auto chain = rig.Chain(3);
  ASSERT_TRUE(rig.PutAll(chain).ok());
  const CoreMatch match = *rig.core->MatchAndLease(b, chain);
  EXPECT_EQ(match.found.rows_blocks, 0u);
  EXPECT_FALSE(match.leased.has_value());
}

TEST(LocalMatch, LeasesOnlyWhenAsked) {
  CoreRig rig;
  auto cache = *OpenLocalCache(*rig.core, RigSpec());
  const auto chain = rig.Chain(3);
  ASSERT_TRUE(rig.PutAll(chain).ok());
  EXPECT_EQ(cache->Match(chain)->leased, nullptr);
  EXPECT_EQ(rig.Stat("open_leases"), 0u);
  MatchResult match = *cache->Match(chain, {.lease_host = true});
  ASSERT_NE(match.leased, nullptr);
  EXPECT_EQ(rig.Stat("open_leases"), 1u);
  std::vector<uint8_t> out(match.leased->payload_bytes());
  EXPECT_TRUE(match.leased->CopyOut(out).ok());
  const std::vector<uint8_t> last = PayloadOf({chain[2], EntryKind::kRows});
  EXPECT_TRUE(std::equal(last.begin(), last.end(), out.begin() + 2 * 2148));
  match.leased.reset();
  EXPECT_EQ(rig.Stat("open_leases"), 0u);
}

}  // namespace
}  // namespace cairn::cache
