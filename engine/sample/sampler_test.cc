// The sampler against its definition.
//
// Method: distributions are compared with ones computed here in the plainest way (sort everything,
// apply each rule to the whole list), over all draws of a grid of uniform numbers' worth of
// positions; single rules by logits small enough to do in the head.
#include "engine/sample/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "engine/sample/counter_random.h"
#include "store/base/random.h"

namespace cairn::engine {
namespace {

TEST(CounterRandom, PublishedVectors) {
  EXPECT_EQ(Philox({0, 0, 0, 0}, {0, 0}),
            (PhiloxBlock{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (PhiloxBlock{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(CounterRandom, UniformAndOfItsPlaceOnly) {
  double sum = 0;
  std::vector<int> buckets(16);
  for (uint64_t i = 0; i < 16000; ++i) {
    const double u = UniformAt(7, i);
    ASSERT_GE(u, 0);
    ASSERT_LT(u, 1);
    sum += u;
    ++buckets[static_cast<size_t>(u * 16)];
  }
  EXPECT_NEAR(sum / 16000, 0.5, 0.01);
  for (const int count : buckets) EXPECT_NEAR(count, 1000, 130);
  EXPECT_EQ(UniformAt(7, 3), UniformAt(7, 3));
  EXPECT_NE(UniformAt(7, 3), UniformAt(8, 3));
  EXPECT_NE(UniformAt(7, 3), UniformAt(7, 3 + (uint64_t{1} << 32)));
}

int32_t One(const SamplingParams& params, std::vector<float> logits, int64_t position = 0) {
  return Sampler(params, {}).Next(logits, position).token;
}

// How often each token comes in `draws` positions.
std::map<int32_t, double> Shares(const SamplingParams& params, const std::vector<float>& logits,
                                 int draws = 20000) {
  std::map<int32_t, double> shares;
  for (int i = 0; i < draws; ++i) shares[One(params, logits, i)] += 1.0 / draws;
  return shares;
}

// The definition, done the long way.
std::map<int32_t, double> Expected(const SamplingParams& p, std::vector<float> logits) {
  for (const auto& [token, bias] : p.logit_bias) {
    logits[static_cast<size_t>(token)] += static_cast<float>(bias);
  }
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
  });
  std::vector<double> probability;
  for (const int32_t token : order) {
    probability.push_back(std::exp(logits[static_cast<size_t>(token)] / p.temperature));
  }
  const auto normalise = [&] {
    const double sum = std::accumulate(probability.begin(), probability.end(), 0.0);
    for (double& x : probability) x /= sum;
  };
  normalise();
  while (probability.back() < p.min_p * probability.front()) probability.pop_back();
  if (p.top_k > 0 && probability.size() > static_cast<size_t>(p.top_k)) {
    probability.resize(static_cast<size_t>(p.top_k));
  }
  normalise();
  double sum = 0;
  size_t kept = 0;
  while (kept < probability.size() && sum < p.top_p) sum += probability[kept++];
  probability.resize(kept);
  normalise();
  std::map<int32_t, double> expected;
  for (size_t i = 0; i < kept; ++i) expected[order[i]] = probability[i];
  return expected;
}

TEST(Sampler, DistributionsAreTheDefinitions) {
  const std::vector<float> logits = {1.0f, 2.5f, 0.0f, 2.0f, 2.0f, -1.0f, 0.5f, 1.5f};
  const std::vector<SamplingParams> cases = {
      {},
      {.temperature = 0.5},
      {.temperature = 2},
      {.top_p = 0.7},
      {.top_p = 0.01},
      {.top_k = 3},
      {.top_k = 100},
      {.min_p = 0.3},
      {.min_p = 1},
      {.temperature = 1.5, .top_p = 0.8, .top_k = 5, .min_p = 0.1},
      {.top_p = 0.9, .logit_bias = {{2, 3}, {1, -100}}},
  };
  for (size_t i = 0; i < cases.size(); ++i) {
    const auto expected = Expected(cases[i], logits);
    const auto shares = Shares(cases[i], logits);
    EXPECT_EQ(shares.size(), expected.size()) << "case " << i;
    for (const auto& [token, share] : shares) {
      ASSERT_TRUE(expected.contains(token)) << "case " << i << " token " << token;
      EXPECT_NEAR(share, expected.at(token), 0.015) << "case " << i << " token " << token;
    }
  }
}

// What a draw gives is where its uniform number lies, not only how often things come.
TEST(Sampler, LazyRankingEqualsTheWholeOne) {
  SeededRandom random(3);
  for (int round = 0; round < 200; ++round) {
    std::vector<float> logits(40);
    for (float& x : logits) x = static_cast<float>(random.Next() % 64) / 8;
    const SamplingParams lazy = {.seed = static_cast<uint64_t>(round)};
    // Keeps everything, but takes the way of those that do not.
    SamplingParams eager = lazy;
    eager.min_p = 1e-300;
    EXPECT_EQ(One(lazy, logits, round), One(eager, logits, round));
  }
}

TEST(Sampler, EqualLogitsLowerIdFirst) {
  const std::vector<float> equal(9, 1.0f);
  EXPECT_EQ(One({.temperature = 0}, equal), 0);
  EXPECT_EQ(Shares({.top_k = 2}, equal, 200).rbegin()->first, 1);
  EXPECT_EQ(Shares({.top_p = 0.3}, equal, 200).rbegin()->first, 2);
  const SampledToken sampled = Sampler({.top_logprobs = 3}, {}).Next(equal, 0);
  ASSERT_EQ(sampled.top.size(), 3u);
  for (int32_t i = 0; i < 3; ++i) EXPECT_EQ(sampled.top[static_cast<size_t>(i)].token, i);
}

TEST(Sampler, TemperatureZeroAndNearlyZeroAreGreedy) {
  for (const double temperature : {0.0, 1e-9, 1e-30}) {
    EXPECT_EQ(One({.temperature = temperature}, {0, 3, 1}), 1);
  }
  EXPECT_EQ(One({.temperature = 0, .logit_bias = {{2, 5}}}, {0, 3, 1}), 2);
}

TEST(Sampler, PenaltiesCountWhatTheySay) {
  // Frequency and presence look at the answer only, and frequency at how often.
  const std::vector<int32_t> prompt = {1};
  Sampler presence({.temperature = 0, .presence_penalty = 1.5}, prompt);
  EXPECT_EQ(presence.Next(std::vector<float>{0, 3, 2}, 0).token, 1);
  EXPECT_EQ(presence.Next(std::vector<float>{0, 3, 2}, 1).token, 2);
  EXPECT_EQ(presence.Next(std::vector<float>{0, 3, 2}, 2).token, 1) << "once, not each time";

  Sampler frequency({.temperature = 0, .frequency_penalty = 0.6}, prompt);
  std::vector<int32_t> tokens;
  for (int i = 0; i < 5; ++i) {
    tokens.push_back(frequency.Next(std::vector<float>{0, 3, 2}, i).token);
  }
  EXPECT_EQ(tokens, (std::vector<int32_t>{1, 1, 2, 1, 2}));

  // Repetition looks at the prompt too; a negative logit is multiplied.
  Sampler repetition({.temperature = 0, .repetition_penalty = 2}, prompt);
  EXPECT_EQ(repetition.Next(std::vector<float>{-9, 3, 2}, 0).token, 2);
  EXPECT_EQ(repetition.Next(std::vector<float>{-1.5f, -1, -2}, 1).token, 0);
}

TEST(Sampler, LogprobsAreOfTheModelsOwnLogits) {
  const std::vector<float> logits = {0, 1, 2};
  const double sum = std::exp(0) + std::exp(1) + std::exp(2);
  Sampler sampler({.temperature = 0, .logit_bias = {{0, 50}}, .top_logprobs = 2}, {});
  const SampledToken sampled = sampler.Next(logits, 0);
  EXPECT_EQ(sampled.token, 0);
  EXPECT_NEAR(sampled.logprob, -std::log(sum), 1e-12);
  ASSERT_EQ(sampled.top.size(), 2u);
  EXPECT_EQ(sampled.top[0].token, 2);
  EXPECT_NEAR(sampled.top[0].logprob, 2 - std::log(sum), 1e-12);
  EXPECT_TRUE(Sampler({.top_logprobs = 0}, {}).Next(logits, 0).top.empty());
}

TEST(Sampler, TheSamePlaceGivesTheSameToken) {
  std::vector<float> logits(100);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = static_cast<float>(i % 7);
  Sampler busy({.seed = 5}, {});
  std::vector<int32_t> in_turn;
  for (int64_t i = 0; i < 50; ++i) in_turn.push_back(busy.Next(logits, i).token);
  for (int64_t i = 49; i >= 0; --i) {
    EXPECT_EQ(One({.seed = 5}, logits, i), in_turn[static_cast<size_t>(i)]);
  }
  EXPECT_NE(std::count(in_turn.begin(), in_turn.end(), in_turn[0]), 50);
}

TEST(CheckSampling, RefusesByName) {
  const double nan = std::nan("");
  const std::vector<std::pair<SamplingParams, std::string>> cases = {
      {{.temperature = -0.1}, "temperature"},
      {{.temperature = 2.1}, "temperature"},
      {{.temperature = nan}, "temperature"},
      {{.top_p = 0}, "top_p"},
      {{.top_p = 1.01}, "top_p"},
      {{.top_p = nan}, "top_p"},
      {{.top_k = -1}, "top_k"},
      {{.min_p = 1.5}, "min_p"},
      {{.presence_penalty = 3}, "presence_penalty"},
      {{.frequency_penalty = -3}, "frequency_penalty"},
      {{.repetition_penalty = 0}, "repetition_penalty"},
      {{.repetition_penalty = INFINITY}, "repetition_penalty"},
      {{.logit_bias = {{64, 1}}}, "logit_bias"},
      {{.logit_bias = {{-1, 1}}}, "logit_bias"},
      {{.logit_bias = {{1, 101}}}, "logit_bias"},
      {{.logit_bias = std::vector<std::pair<int32_t, double>>(kLogitBiasMax + 1)}, "logit_bias"},
      {{.top_logprobs = 21}, "top_logprobs"},
  };
  for (const auto& [params, field] : cases) {
    const absl::Status status = CheckSampling(params, 64);
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << field;
    EXPECT_EQ(status.message().substr(0, field.size() + 1), field + ":");
  }
  EXPECT_TRUE(CheckSampling({}, 64).ok());
  EXPECT_TRUE(CheckSampling({.temperature = 0, .logit_bias = {{63, -100}}}, 64).ok());
}

}  // namespace
}  // namespace cairn::engine
