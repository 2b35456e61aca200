// Goal: a checkpoint that nobody used for as long as its policy keeps it is not served from that
// instant, and leaves its tiers when the disk is next written; one that is used, held or put again
// stays. And: a match says where prompts part. Method: a core whose clock is turned by hand.
#include "cache/core/core_rig.h"

namespace cairn::cache {
namespace {

constexpr EntryKind kRows = EntryKind::kRows, kCheckpoint = EntryKind::kCheckpoint;

CoreRig::Sizes With(const char* policy) {
  CoreRig::Sizes sizes;
  sizes.options.policy = *CheckpointPolicy::Parse(policy);
  return sizes;
}

size_t Checkpoints(CoreRig& rig, std::span<const Digest> chain) {
  return rig.core->Match(rig.session, chain)->checkpoints.size();
}

// Has something written to disk, so many times that all blocks get their turn.
constexpr size_t kWrites = 9;
void Write(CoreRig& rig, int stem) {
  const auto chain = rig.Chain(kWrites, stem);
  for (size_t i = 0; i < kWrites; ++i) {
    ASSERT_TRUE(rig.Put(chain, i, kRows, /*durable=*/true).ok());
  }
}

TEST(Expiry, AnUnusedCheckpointIsNotServedPastItsTime) {
  CoreRig rig(With("ends:ttl=10m"));
  const auto chain = rig.Chain(3);
  ASSERT_TRUE(rig.PutAll(chain, true).ok());
  rig.clock.Advance(absl::Minutes(10));
  EXPECT_EQ(Checkpoints(rig, chain), 1u);  // and that was a use
  rig.clock.Advance(absl::Minutes(10));
  EXPECT_EQ(Checkpoints(rig, chain), 1u);
  rig.clock.Advance(absl::Minutes(10) + absl::Seconds(1));
  EXPECT_EQ(rig.Rows(chain), 3u);
  EXPECT_EQ(Checkpoints(rig, chain), 0u);
  EXPECT_FALSE(rig.core->MatchAndLease(rig.session, chain)->leased.has_value());
  const auto fetched = rig.Fetch(chain);
  ASSERT_TRUE(fetched.ok());
  EXPECT_EQ(fetched->rows.size(), 3u);
  EXPECT_FALSE(fetched->checkpoint.has_value());
}

TEST(Expiry, ItLeavesBothTiersWhenTheDiskIsWritten) {
  CoreRig rig(With("ends:ttl=10m"));
  ASSERT_TRUE(rig.PutAll(rig.Chain(3), true).ok());
  ASSERT_TRUE(rig.PutAll(rig.Chain(2, 1), true).ok());
  const uint64_t host = rig.Stat("host_entries"), disk = rig.Stat("disk_entries");
  rig.clock.Advance(absl::Minutes(11));
  EXPECT_EQ(rig.Stat("expired_entries"), 0u);
  Write(rig, 2);
  EXPECT_EQ(rig.Stat("expired_entries"), 2u);
  EXPECT_EQ(rig.Stat("host_entries"), host + kWrites - 2);
  EXPECT_EQ(rig.Stat("disk_entries"), disk + kWrites - 2);
  // Gone for good.
  rig.Restart();
  EXPECT_EQ(Checkpoints(rig, rig.Chain(3)), 0u);
  EXPECT_EQ(rig.Rows(rig.Chain(3)), 3u);
}

TEST(Expiry, EveryTtlIsItsOwn) {
  CoreRig rig(With("every:256:ttl=1m+branches:ttl=1h+ends:ttl=10m"));
  const auto chain = rig.Chain(5);
  for (size_t i = 0; i < chain.size(); ++i) ASSERT_TRUE(rig.Put(chain, i, kRows).ok());
  for (const size_t i : {1u, 2u, 4u}) ASSERT_TRUE(rig.Put(chain, i, kCheckpoint).ok());
  // Prompts part at three blocks.
  ASSERT_TRUE(rig.Put(rig.Chain(4, 0, 3, 1), 3, kRows).ok());
  // Of these, asking is a use of the deepest.
  const auto left = [&] {
    std::vector<uint32_t> blocks;
    const MatchResult match = *rig.core->Match(rig.session, chain);
    for (const CheckpointHit& hit : match.checkpoints) {
      blocks.push_back(hit.blocks);
    }
    return blocks;
  };
  EXPECT_EQ(left(), (std::vector<uint32_t>{5, 3, 2}));
  rig.clock.Advance(absl::Minutes(2));
  EXPECT_EQ(left(), (std::vector<uint32_t>{5, 3}));
  rig.clock.Advance(absl::Minutes(11));
  EXPECT_EQ(left(), (std::vector<uint32_t>{3}));
  rig.clock.Advance(absl::Minutes(59));
  EXPECT_EQ(left(), (std::vector<uint32_t>{3}));
  rig.clock.Advance(absl::Minutes(61));
  EXPECT_TRUE(left().empty());
}

TEST(Expiry, WhatIsHeldStays) {
  CoreRig rig(With("full:ttl=10m"));
  const auto leased = rig.Chain(2), pinned = rig.Chain(2, 1);
  ASSERT_TRUE(rig.PutAll(leased, true).ok());
  ASSERT_TRUE(rig.PutAll(pinned, true).ok());
  const auto prefix = rig.Fetch(leased);
  ASSERT_TRUE(prefix.ok());
  ASSERT_TRUE(rig.core->Pin(pinned.back(), true).ok());
  rig.clock.Advance(absl::Minutes(9));
  const auto again = rig.Fetch(leased);  // the first lease ends by its deadline of ten minutes
  rig.clock.Advance(absl::Minutes(9));
  Write(rig, 2);
  EXPECT_EQ(rig.Stat("expired_entries"), 0u);
  CoreRig::ExpectTrue(*again, leased);
  EXPECT_EQ(Checkpoints(rig, pinned), 1u);
  ASSERT_TRUE(rig.core->Pin(pinned.back(), false).ok());
  rig.clock.Advance(absl::Minutes(20));
  Write(rig, 3);
  EXPECT_EQ(rig.Stat("expired_entries"), 2u);
}

TEST(Expiry, PutAgainItIsAsGoodAsNew) {
  CoreRig rig(With("ends:ttl=10m"));
  const auto chain = rig.Chain(3);
  ASSERT_TRUE(rig.PutAll(chain).ok());
  rig.clock.Advance(absl::Minutes(11));
  EXPECT_EQ(Checkpoints(rig, chain), 0u);
  // It lies there still, so nobody needs to bring its bytes.
  EXPECT_TRUE(absl::IsAlreadyExists(rig.Put(chain, 2, kCheckpoint)));
  EXPECT_EQ(Checkpoints(rig, chain), 1u);
  rig.clock.Advance(absl::Minutes(11));
  Write(rig, 1);
  // Now it does not.
  EXPECT_TRUE(rig.Put(chain, 2, kCheckpoint).ok());
  EXPECT_EQ(Checkpoints(rig, chain), 1u);
  CoreRig::ExpectTrue(*rig.Fetch(chain), chain);
}

// Of earlier use nothing is stored.
TEST(Expiry, ARestartCountsAnew) {
  CoreRig rig(With("ends:ttl=10m"));
  const auto chain = rig.Chain(3);
  ASSERT_TRUE(rig.PutAll(chain, true).ok());
  rig.clock.Advance(absl::Minutes(9));
  rig.Restart();
  rig.clock.Advance(absl::Minutes(9));
  EXPECT_EQ(Checkpoints(rig, chain), 1u);
  rig.clock.Advance(absl::Minutes(11));
  EXPECT_EQ(Checkpoints(rig, chain), 0u);
}

TEST(Expiry, WithoutATtlNothingEnds) {
  CoreRig rig(With("every:256:ttl=1m+ends"));
  const auto chain = rig.Chain(3);
  ASSERT_TRUE(rig.PutAll(chain, true).ok());
  rig.clock.Advance(absl::Hours(24 * 365));
  Write(rig, 1);
  EXPECT_EQ(Checkpoints(rig, chain), 1u);
}

TEST(Branches, AMatchSaysWherePromptsPart) {
  CoreRig rig;
  const auto branches = [&](std::span<const Digest> chain) {
    return rig.core->Match(rig.session, chain)->branches;
  };
  EXPECT_FALSE(branches(rig.Chain(4)));
  for (size_t i = 0; i < 4; ++i) ASSERT_TRUE(rig.Put(rig.Chain(4), i, kRows).ok());
  EXPECT_TRUE(branches(rig.Chain(4, 0, 2, 1)));   // another third block
  EXPECT_TRUE(branches(rig.Chain(2)));            // who knows how it goes on
  EXPECT_FALSE(branches(rig.Chain(4)));           // the same
  EXPECT_FALSE(branches(rig.Chain(6)));           // longer, and alone so far
  EXPECT_FALSE(branches(rig.Chain(4, 0, 0, 1)));  // nothing in common
}

}  // namespace
}  // namespace cairn::cache
