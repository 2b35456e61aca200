// Goal: what computing and fetching cost is learned, by position and by tier, from measurements of
// any size, and is never held for ever on one bad day's word.
#include "engine/resume/cost_model.h"

#include <gtest/gtest.h>

#include "engine/model/config.h"

namespace cairn::engine {
namespace {

constexpr uint64_t kMiB = 1 << 20;

TEST(CostModel, ASlowTierIsLearned) {
  CostModel costs;
  const auto worth = [&](int64_t tokens, uint64_t host_bytes, uint64_t disk_bytes) {
    return costs.FetchSeconds(host_bytes, disk_bytes) < costs.PrefillSeconds(0, tokens);
  };
  costs.ObservePrefill(0, 1000, 1.0);
  EXPECT_TRUE(worth(1000, 0, 100 * kMiB));
  costs.ObserveFetch(0, 100 * kMiB, 20.0);  // a disk of 5 MB/s
  EXPECT_FALSE(worth(1000, 0, 100 * kMiB));
  EXPECT_TRUE(worth(1000, 100 * kMiB, 0));  // host memory is as fast as before
  EXPECT_TRUE(worth(100'000, 0, 100 * kMiB));
}

TEST(CostModel, TheFirstLargeFetchIsBelievedALaterOneWeighsAQuarter) {
  CostModel costs;
  costs.ObserveFetch(0, 10 * kMiB, 1.001);
  EXPECT_NEAR(costs.FetchSeconds(0, 10 * kMiB), 1.001, 1e-6);
  costs.ObserveFetch(0, 10 * kMiB, 5.001);
  EXPECT_NEAR(costs.FetchSeconds(0, 10 * kMiB), 2.001, 1e-6);
}

TEST(CostModel, SmallFetchesCountInProportion) {
  CostModel costs;
  costs.ObserveFetch(0, kMiB, 1.001);
  costs.ObserveFetch(0, kMiB / 4, 1.001);  // four times as slow
  EXPECT_NEAR(costs.FetchSeconds(0, kMiB), 1.001 + 3.0 / 16, 1e-6);
}

// What a stall taught is doubted, so slowly that trying again costs nothing to speak of.
TEST(CostModel, WhatIsDeclinedIsTriedAgainSomeDay) {
  CostModel costs;
  costs.ObserveFetch(0, 100 * kMiB, 20.0);
  const double before = costs.FetchSeconds(0, kMiB);
  costs.ObserveDeclined();
  EXPECT_LT(costs.FetchSeconds(0, kMiB), before);
  EXPECT_GT(costs.FetchSeconds(0, kMiB), 0.998 * before);
  for (int i = 0; i < 10'000; ++i) costs.ObserveDeclined();
  EXPECT_LT(costs.FetchSeconds(0, kMiB), 0.01);
}

TEST(CostModel, DeeperTokensCostMore) {
  CostModel costs;
  const auto second = [](double position) { return 1e-3 + 1e-7 * position; };
  for (int64_t from = 0; from < 32'768; from += 256) {
    costs.ObservePrefill(from, 256, 256 * second(static_cast<double>(from) + 128));
  }
  EXPECT_NEAR(costs.PrefillSeconds(0, 128), 128 * second(64), 1e-5);
  EXPECT_NEAR(costs.PrefillSeconds(16'384, 32'768), 16'384 * second(24'576), 1e-3);
}

TEST(CostModel, OfOneDepthNoLineIsDrawn) {
  CostModel costs;
  for (int i = 0; i < 20; ++i) costs.ObservePrefill(10'000 + i, 100, 0.1 + 0.01 * i);
  EXPECT_NEAR(costs.PrefillSeconds(0, 100), costs.PrefillSeconds(50'000, 50'100), 1e-12);
  EXPECT_GT(costs.PrefillSeconds(0, 100), 0.1);
}

// A load that goes as the prompt gets deeper looks like tokens that get cheaper, or steeper ones.
TEST(CostModel, NoTokenIsFree) {
  CostModel costs;
  for (int64_t from = 0; from < 8192; from += 256) {
    costs.ObservePrefill(from, 256, from < 4096 ? 0.001 : 1.0);
  }
  EXPECT_GT(costs.PrefillSeconds(0, 128), 0);
  CostModel falling;
  for (int64_t from = 0; from < 8192; from += 256) {
    falling.ObservePrefill(from, 256, from < 4096 ? 1.0 : 0.001);
  }
  EXPECT_GT(falling.PrefillSeconds(100'000, 100'128), 0);
}

TEST(CostModel, AReplayIsWorthItsTokenLayersWhereTheyAre) {
  CostModel costs;
  costs.ObservePrefill(0, 1000, 1.0);
  ModelConfig config;
  config.window = 128;
  config.layers = 4;
  const ReplayPlan plan = ReplayPlan::To(config, 10'000);
  EXPECT_NEAR(costs.ReplaySeconds(plan), static_cast<double>(plan.TokenLayers()) / 4 * 1e-3, 1e-9);
}

}  // namespace
}  // namespace cairn::engine
