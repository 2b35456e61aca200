// Goal: of the ways to resume the fastest to the first token is taken, and none that prefilling
// beats. Method: layers of V4-Flash's number over nano's shapes, a prefill of 1 ms a token, host
// memory and disk as fast as the model first guesses.
#include "engine/resume/resume_point.h"

#include <gtest/gtest.h>

#include "engine/model/presets.h"
#include "engine/state/replay_plan.h"

namespace cairn::engine {
namespace {

using cache::Tier;

class RankTest : public testing::Test {
 protected:
  RankTest() : config_(*PresetConfig("nano")) {
    SetLayers(config_, 43, 1);
    layout_ = std::make_unique<KvLayout>(config_, Numerics::kKvq);
    costs_.ObservePrefill(0, 1000, 1.0);
  }
  ResumePoints Rank(cache::MatchResult match) const {
    return RankResumePoints(match, model(), costs_, /*deepest_first=*/false);
  }
  CachedModel model(bool replays = true) const {
    return {.config = config_, .layout = *layout_, .weights = {}, .replays = replays};
  }
  ModelConfig config_;
  std::unique_ptr<KvLayout> layout_;
  CostModel costs_;
};

TEST_F(RankTest, ACheckpointWhereTheRowsEndIsTheFastest) {
  const ResumePoints found =
      Rank({.rows_blocks = 100, .rows_host_blocks = 100, .checkpoints = {{100, Tier::kHost}}});
  ASSERT_EQ(found.points.size(), 2u);
  EXPECT_EQ(found.points[0].blocks, 100u);
  EXPECT_FALSE(found.points[0].replay);
  EXPECT_LT(found.points[0].seconds, found.points[1].seconds);
  EXPECT_DOUBLE_EQ(found.prefill_seconds, 12.8);
}

// Flash's replay is worth about 2,900 tokens.
TEST_F(RankTest, RowsAloneAreReplayedWhereThatIsLessThanAPrefill) {
  const ResumePoints longer = Rank({.rows_blocks = 100, .rows_host_blocks = 100});
  ASSERT_EQ(longer.points.size(), 1u);
  EXPECT_TRUE(longer.points[0].replay);
  EXPECT_NEAR(longer.points[0].seconds, 2.93, 0.05);
  const ResumePoints tiny = Rank({.rows_blocks = 2, .rows_host_blocks = 2});
  EXPECT_GE(tiny.points[0].seconds, tiny.prefill_seconds);
}

TEST_F(RankTest, RowsBeyondTheLastCheckpointAreReplayedIfThatIsLessThanComputingThem) {
  cache::MatchResult match{.rows_blocks = 200, .rows_host_blocks = 200};
  match.checkpoints = {{190, Tier::kHost}};
  const ResumePoints near = Rank(match);
  EXPECT_EQ(near.points[0].blocks, 190u);
  EXPECT_FALSE(near.points[0].replay);
  match.checkpoints = {{64, Tier::kHost}};
  const ResumePoints far = Rank(match);
  EXPECT_EQ(far.points[0].blocks, 200u);
  EXPECT_TRUE(far.points[0].replay);
}

TEST_F(RankTest, NearEvenItDoesNotPay) {
  const cache::MatchResult match{
      .rows_blocks = 8, .rows_host_blocks = 8, .checkpoints = {{8, Tier::kHost}}};
  const auto bytes =
      static_cast<uint64_t>(8 * layout_->rows_entry_bytes() + layout_->checkpoint_bytes());
  const auto pays = [&](double share) {  // of prefilling's 1.024 s
    CostModel costs;
    costs.ObservePrefill(0, 1000, 1.0);
    costs.ObserveFetch(100 * bytes, 0, 100 * share * 1.024);
    const ResumePoints found = RankResumePoints(match, model(), costs, /*deepest_first=*/false);
    EXPECT_NEAR(found.points[0].seconds, share * found.prefill_seconds, 0.01);
    return found.Pays(found.points[0]);
  };
  EXPECT_TRUE(pays(0.87));
  EXPECT_FALSE(pays(0.93));
}

TEST_F(RankTest, RowsOnASlowDiskAreLeft) {
  costs_.ObserveFetch(0, 1 << 20, 20);
  const ResumePoints found = Rank({.rows_blocks = 200, .rows_host_blocks = 150});
  EXPECT_EQ(found.points[0].blocks, 150u);
  EXPECT_GE(found.points[1].seconds, found.prefill_seconds);
  // A checkpoint that lies there too.
  const ResumePoints host =
      Rank({.rows_blocks = 150, .rows_host_blocks = 150, .checkpoints = {{150, Tier::kDisk}}});
  EXPECT_TRUE(host.points[0].replay);
}

TEST_F(RankTest, TheDeepestFirstIfThatIsAsked) {
  cache::MatchResult match{.rows_blocks = 20, .rows_host_blocks = 20};
  match.checkpoints = {{19, Tier::kHost}, {4, Tier::kHost}};
  EXPECT_EQ(Rank(match).points[0].blocks, 19u);
  const ResumePoints found = RankResumePoints(match, model(), costs_, /*deepest_first=*/true);
  ASSERT_EQ(found.points.size(), 3u);
  EXPECT_EQ(found.points[0].blocks, 20u);
  EXPECT_EQ(found.points[1].blocks, 19u);
  EXPECT_EQ(found.points[2].blocks, 4u);
}

// Of loading and the first step behind it, what is the shorter is hidden but for one group.
TEST_F(RankTest, WhatOverlapsIsPaidOnce) {
  costs_.ObserveFetch(1 << 20, 0, 1);  // a second a MiB
  const cache::MatchResult match{
      .rows_blocks = 100, .rows_host_blocks = 100, .checkpoints = {{100, Tier::kHost}}};
  const double apart = RankResumePoints(match, model(false), costs_, false).points[0].seconds;
  const auto saved = [&](const Overlap& overlap) {
    return apart - RankResumePoints(match, model(false), costs_, false, overlap).points[0].seconds;
  };
  // A prompt of 13,000 tokens: 200 behind the prefix, 1 ms each.
  EXPECT_NEAR(saved({.groups = 8, .step_tokens = 256, .prompt_tokens = 13000}), 0.2 * 7 / 8, 1e-6);
  EXPECT_NEAR(saved({.groups = 8, .step_tokens = 100, .prompt_tokens = 13000}), 0.1 * 7 / 8, 1e-6);
  EXPECT_NEAR(saved({.groups = 2, .step_tokens = 100, .prompt_tokens = 13000}), 0.1 / 2, 1e-6);
  const double loading =
      -costs_.FetchSeconds(0, 0) +
      costs_.FetchSeconds(RankResumePoints(match, model(false), costs_, false).points[0].host_bytes,
                          0);
  EXPECT_NEAR(saved({.groups = 8, .step_tokens = 1 << 20, .prompt_tokens = 1 << 20}),
              loading * 7 / 8, 1e-6);
  EXPECT_EQ(saved({.groups = 1, .step_tokens = 256, .prompt_tokens = 13000}), 0);
  EXPECT_EQ(saved({.groups = 8, .bytes_min = 1 << 30, .step_tokens = 256, .prompt_tokens = 13000}),
            0);
}

// From disk to the daemon's memory nothing overlaps: no byte leaves before all are there.
TEST_F(RankTest, OnlyTheWayFromTheDaemonsMemoryOverlaps) {
  costs_.ObserveFetch(0, 1 << 20, 1);
  const cache::MatchResult match{.rows_blocks = 100, .checkpoints = {{100, Tier::kDisk}}};
  const Overlap overlap{.groups = 8, .step_tokens = 256, .prompt_tokens = 13000};
  const double apart = RankResumePoints(match, model(false), costs_, false).points[0].seconds;
  const double beside =
      RankResumePoints(match, model(false), costs_, false, overlap).points[0].seconds;
  EXPECT_LT(apart - beside, 5e-3);  // of 14 s
}

TEST_F(RankTest, WhatCannotReplayIsOfferedCheckpointsOnly) {
  cache::MatchResult match{.rows_blocks = 200, .rows_host_blocks = 150};
  EXPECT_TRUE(RankResumePoints(match, model(/*replays=*/false), costs_, false).points.empty());
  match.checkpoints = {{64, Tier::kHost}};
  const ResumePoints found = RankResumePoints(match, model(/*replays=*/false), costs_, false);
  ASSERT_EQ(found.points.size(), 1u);
  EXPECT_EQ(found.points[0].blocks, 64u);
  EXPECT_FALSE(found.points[0].replay);
}

TEST_F(RankTest, AMatchOfMoreThanWasAskedIsALie) {
  const cache::MatchResult honest{
      .rows_blocks = 5, .rows_host_blocks = 3, .checkpoints = {{5, Tier::kDisk}, {2, Tier::kHost}}};
  EXPECT_TRUE(CheckMatch(honest, 5).ok());
  EXPECT_TRUE(absl::IsInternal(CheckMatch(honest, 4)));
  cache::MatchResult lie = honest;
  lie.rows_host_blocks = 6;
  EXPECT_TRUE(absl::IsInternal(CheckMatch(lie, 5)));
  for (const uint32_t blocks : {0u, 6u}) {
    lie = honest;
    lie.checkpoints[1].blocks = blocks;
    EXPECT_TRUE(absl::IsInternal(CheckMatch(lie, 5)));
  }
}

TEST_F(RankTest, AReplayNeverComputesMoreThanAPrefill) {
  for (int64_t blocks = 1; blocks < 100; ++blocks) {
    const ReplayPlan plan = ReplayPlan::To(config_, blocks * 128);
    EXPECT_LE(costs_.ReplaySeconds(plan), costs_.PrefillSeconds(0, plan.end) + 1e-9);
  }
}

}  // namespace
}  // namespace cairn::engine
