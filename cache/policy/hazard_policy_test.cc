// Goal: the daemon's policy names only what is evictable, prefers what pays per byte, repeats
// itself with the same seed, knows what returns, and learns to let a scan pass.
// Method: small worlds driven by hand; a learned one with a loop and a scan.
#include "cache/policy/hazard_policy.h"

#include <gtest/gtest.h>

namespace cairn::cache {
namespace {

class HazardPolicyTest : public testing::Test {
 protected:
  void Insert(PolicyHandle handle, EntryFacts facts) {
    if (facts.key == 0) facts.key = handle;
    policy_.Inserted(handle, facts);
    policy_.SetEvictable(handle, true);
  }
  PolicyHandle Evict() {
    const PolicyHandle victim = policy_.Victim().value_or(kNoHandle);
    if (victim != kNoHandle) policy_.Removed(victim, true);
    return victim;
  }

  SeededRandom random_{7};
  HazardPolicy policy_{{.entries_expected = 100, .random = &random_}};
};

TEST_F(HazardPolicyTest, NothingToEvict) {
  EXPECT_EQ(policy_.Victim(), std::nullopt);
  policy_.Inserted(5, {.key = 5});
  EXPECT_EQ(policy_.Victim(), std::nullopt);
}

TEST_F(HazardPolicyTest, OnlyEvictableEntriesGo) {
  for (PolicyHandle handle = 0; handle < 100; ++handle) Insert(handle, {});
  for (PolicyHandle handle = 0; handle < 100; ++handle) {
    if (handle != 42) policy_.SetEvictable(handle, false);
  }
  EXPECT_EQ(Evict(), 42u);
  EXPECT_EQ(policy_.Victim(), std::nullopt);
}

TEST_F(HazardPolicyTest, KnowingNothingTheOldestGoes) {
  for (PolicyHandle handle = 0; handle < 20; ++handle) Insert(handle, {});
  policy_.Used(0);
  EXPECT_EQ(Evict(), 1u);
}

TEST_F(HazardPolicyTest, AUseThatNothingIsLearnedFromCountsForTheEntry) {
  for (PolicyHandle handle = 0; handle < 20; ++handle) Insert(handle, {});
  policy_.UsedUnlearned(0);
  EXPECT_EQ(Evict(), 1u);
}

TEST_F(HazardPolicyTest, WhatSavesLessPerByteGoesFirst) {
  Insert(1, {.bytes = 450'000, .tokens = 128});
  Insert(2, {.kind = EntryKind::kRows, .bytes = 3'600'000, .tokens = 128});
  EXPECT_EQ(Evict(), 2u);
  Insert(3, {.bytes = 450'000, .tokens = 128});
  policy_.SetWorth(3, 450'000, 0);
  EXPECT_EQ(Evict(), 3u);
}

TEST_F(HazardPolicyTest, TheSameSeedTheSameVictims) {
  std::vector<PolicyHandle> victims[2];
  for (auto& mine : victims) {
    SeededRandom random(3);
    HazardPolicy policy({.entries_expected = 100, .random = &random});
    for (PolicyHandle handle = 0; handle < 500; ++handle) {
      policy.Inserted(handle, {.key = handle, .depth = handle % 7});
      policy.SetEvictable(handle, true);
      if (handle < 100) continue;
      mine.push_back(policy.Victim().value_or(kNoHandle));
      policy.Removed(mine.back(), true);
    }
  }
  EXPECT_EQ(victims[0].size(), 400u);
  EXPECT_EQ(victims[0], victims[1]);
}

TEST_F(HazardPolicyTest, TheVictimIsWorthTheLeast) {
  constexpr PolicyHandle kCount = 20;
  for (PolicyHandle handle = 0; handle < kCount; ++handle) {
    Insert(handle, {.key = handle, .bytes = 1 + handle % 3, .tokens = 128});
  }
  for (PolicyHandle handle = 0; handle < kCount; handle += 4) policy_.Used(handle);
  ASSERT_TRUE(policy_.weighs());
  const PolicyHandle victim = *policy_.Victim();
  for (PolicyHandle handle = 0; handle < kCount; ++handle) {
    EXPECT_GT(policy_.Value(handle), 0);
    EXPECT_LE(policy_.Value(victim), policy_.Value(handle)) << handle;
  }
}

// Half of the room is asked for again and again at an age that LRU cannot keep, among a scan of
// blocks that never come back.
TEST_F(HazardPolicyTest, LearnsToKeepALoopAmongAScan) {
  constexpr PolicyHandle kLoop = 50, kRoom = 100;
  constexpr uint32_t kScanPerTurn = 200, kTurns = 200;
  std::vector<bool> present(kLoop + kRoom * 4, false);
  std::vector<PolicyHandle> free;
  for (PolicyHandle handle = kLoop; handle < present.size(); ++handle) free.push_back(handle);
  size_t count = 0;
  uint32_t late_hits = 0;
  uint64_t scan_key = 1'000'000;
  const auto add = [&](PolicyHandle handle, uint64_t key) {
    Insert(handle, {.key = key});
    present[handle] = true;
    if (++count <= kRoom) return;
    const PolicyHandle victim = Evict();
    present[victim] = false;
    --count;
    if (victim >= kLoop) free.push_back(victim);
  };
  for (uint32_t turn = 0; turn < kTurns; ++turn) {
    for (PolicyHandle handle = 0; handle < kLoop; ++handle) {
      if (present[handle]) {
        policy_.Used(handle);
        late_hits += turn >= kTurns / 2 ? 1 : 0;
      } else {
        add(handle, handle + 1);
      }
    }
    for (uint32_t i = 0; i < kScanPerTurn; ++i) {
      const PolicyHandle handle = free.back();
      free.pop_back();
      add(handle, scan_key++);
    }
  }
  EXPECT_GT(late_hits, kLoop * kTurns / 2 * 9 / 10);  // LRU: none
}

}  // namespace
}  // namespace cairn::cache
