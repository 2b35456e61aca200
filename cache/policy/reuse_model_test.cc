// Goal: the model starts as LRU, learns rates that it is shown, and sees a return coming; the
// history reports what came back and what did not. Method: worlds with a known law of reuse.
#include "cache/policy/reuse_model.h"

#include <gtest/gtest.h>

#include "cache/policy/reuse_history.h"

namespace cairn::cache {
namespace {

ReuseTraits Used(uint32_t uses) {
  ReuseTraits traits;
  traits.uses = uses & 15u;
  return traits;
}

TEST(ReuseModel, BinsCoverAgesUpToTheirEdge) {
  EXPECT_EQ(ReuseModel::BinOf(0), 0);
  EXPECT_EQ(ReuseModel::BinOf(1), 0);
  EXPECT_EQ(ReuseModel::BinOf(2), 2);
  EXPECT_EQ(ReuseModel::BinOf(3), 4);  // 2 * sqrt(2) < 3 <= 4
  EXPECT_EQ(ReuseModel::BinOf(4), 4);
  EXPECT_EQ(ReuseModel::BinOf(5), 5);
  for (const uint32_t age : {7u, 100u, 65536u, 65537u, 3'000'000'000u}) {
    const int bin = ReuseModel::BinOf(age);
    EXPECT_LE(age, ReuseModel::Edge(bin));
    EXPECT_GT(age, ReuseModel::Edge(bin - 1));
  }
  EXPECT_EQ(ReuseModel::BinOf(UINT32_MAX), ReuseModel::kBins - 1);
}

TEST(ReuseModel, KnowingNothingTheOlderIsWorthLess) {
  const ReuseModel model;
  double last = model.HitDensity(Used(1), 1);
  for (uint32_t age = 4; age < 1u << 30; age *= 4) {
    const double now = model.HitDensity(Used(1), age);
    EXPECT_LT(now, last) << age;
    last = now;
  }
}

TEST(ReuseModel, LearnsWhichTraitComesBack) {
  ReuseModel model;
  for (int i = 0; i < 20000; ++i) {
    for (int bin = 0; bin < ReuseModel::BinOf(1000); ++bin) {
      model.LearnIdle(Used(1), bin);
      model.LearnIdle(Used(2), bin);
    }
    model.LearnReuse(Used(2), 1000);
    model.LearnIdle(Used(1), ReuseModel::BinOf(1000));
  }
  EXPECT_GT(model.HitDensity(Used(2), 800), 10 * model.HitDensity(Used(1), 800));
}

TEST(ReuseModel, AShareThatStandsForAllTeachesTheSame) {
  ReuseModel all, share(8);
  for (int i = 0; i < 16000; ++i) {
    for (ReuseModel* model : {&all, &share}) {
      if (model == &share && i % 8 != 0) continue;
      for (int bin = 0; bin < ReuseModel::BinOf(1000); ++bin) model->LearnIdle(Used(1), bin);
      model->LearnReuse(Used(1), 1000);
    }
  }
  for (const int bin : {0, ReuseModel::BinOf(100), ReuseModel::BinOf(1000)}) {
    EXPECT_NEAR(share.Rate(Used(1), bin) / all.Rate(Used(1), bin), 1, 0.1) << bin;
  }
}

TEST(ReuseModel, AReturnThatIsNearIsWorthMoreThanOneThatIsFarAndOneThatIsPast) {
  ReuseModel model;
  for (int i = 0; i < 20000; ++i) {
    for (int bin = 0; bin < ReuseModel::BinOf(1000); ++bin) model.LearnIdle(Used(1), bin);
    if (i % 2 == 0) {
      model.LearnReuse(Used(1), 1000);
    } else {
      for (int bin = ReuseModel::BinOf(1000); bin < 40; ++bin) model.LearnIdle(Used(1), bin);
    }
  }
  const double fresh = model.HitDensity(Used(1), 100);
  EXPECT_GT(model.HitDensity(Used(1), 800), fresh);
  EXPECT_LT(model.HitDensity(Used(1), 2000), fresh);
}

TEST(ReuseHistory, RemembersAndReplacesTheLongestUntouched) {
  ReuseModel model;
  ReuseHistory history(8, model);  // one set
  for (uint32_t key = 1; key <= 8; ++key) history.Touch(key, key, Used(1));
  history.Touch(1, 9, Used(2));
  history.Touch(9, 10, Used(1));
  EXPECT_EQ(history.Find(2), nullptr);
  ASSERT_NE(history.Find(1), nullptr);
  EXPECT_EQ(history.Find(1)->traits.uses, 2u);
  EXPECT_EQ(history.Find(1)->touched, 9u);
  EXPECT_NE(history.Find(9), nullptr);
}

TEST(ReuseHistory, WhatNeverComesBackLowersTheRateAndWhatDoesRaisesIt) {
  ReuseModel idle, busy;
  const int bin = ReuseModel::BinOf(100);
  const double before = idle.Rate(Used(1), bin);
  ReuseHistory idle_history(8, idle), busy_history(8, busy);
  for (uint32_t round = 0; round < 200; ++round) {
    const uint32_t now = round * 1000;
    idle_history.Touch(round + 10, now, Used(1));
    idle_history.Sweep(now + 999);
    busy_history.Touch(1, round * 100, Used(1));
  }
  EXPECT_LT(idle.Rate(Used(1), bin), before);
  EXPECT_GT(busy.Rate(Used(1), bin), before);
}

TEST(ReuseHistory, AWaitThatIsRestartedTeachesNothingOfTheTimeBefore) {
  ReuseModel model, untaught;
  ReuseHistory history(8, model);
  history.Restart(1, 5, Used(1));
  EXPECT_EQ(history.Find(1), nullptr);  // not remembered, and not by this
  history.Touch(1, 10, Used(1));
  history.Restart(1, 100'000, Used(2));
  EXPECT_EQ(history.Find(1)->traits.uses, 2u);
  history.Sweep(100'000);
  for (int bin = 0; bin < ReuseModel::kBins; ++bin) {
    ASSERT_EQ(model.Rate(Used(1), bin), untaught.Rate(Used(1), bin)) << bin;
  }
  history.Touch(1, 100'100, Used(3));
  EXPECT_GT(model.Rate(Used(2), ReuseModel::BinOf(100)),
            untaught.Rate(Used(2), ReuseModel::BinOf(100)));
}

}  // namespace
}  // namespace cairn::cache
