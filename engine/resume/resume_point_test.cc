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
    return RankResumePoints(match, config_, *layout_, costs_);
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

TEST_F(RankTest, AReplayNeverComputesMoreThanAPrefill) {
  for (int64_t blocks = 1; blocks < 100; ++blocks) {
    const ReplayPlan plan = ReplayPlan::To(config_, blocks * 128);
    EXPECT_LE(costs_.ReplaySeconds(plan), costs_.PrefillSeconds(0, plan.end) + 1e-9);
  }
}

}  // namespace
}  // namespace cairn::engine
