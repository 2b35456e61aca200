// The CUDA engine against the CPU's, which the golden sets define, and against itself.
//
// Goal: every kernel is in its place, and a token's result depends on its own sequence alone.
// Method: made models whose layers are of one kind each, and of all kinds; the streams after the
// last layer beside the CPU engine's, which keeps activations in F32 where this one has BF16 (about
// 2^-9 a rounding, and now and then a choice of the indexer or the router falls otherwise); then
// chunks, company, decoding by graph, all to the bit.
#include "engine/cuda/cuda_forward.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "engine/cuda/cuda_test_models.h"
#include "kernels/cpu/formats.h"
#include "kernels/cuda/pinned_buffer.h"

namespace cairn::engine {
namespace {

using CudaForwardTest = CudaEngineTest;

struct Distance {
  double relative = 0;  // of all values together
  double median_row = 0;
};

Distance DistanceOf(std::span<const float> want, std::span<const uint16_t> got, size_t width) {
  double all = 0, norm = 0;
  std::vector<double> rows;
  for (size_t r = 0; r < want.size() / width; ++r) {
    double row = 0, row_norm = 0;
    for (size_t i = r * width; i < (r + 1) * width; ++i) {
      const double w = static_cast<double>(want[i]);
      const double d = static_cast<double>(kernels::Bf16ToF32(got[i])) - w;
      row += d * d;
      row_norm += w * w;
    }
    all += row;
    norm += row_norm;
    rows.push_back(std::sqrt(row / row_norm));
  }
  std::nth_element(rows.begin(), rows.begin() + static_cast<std::ptrdiff_t>(rows.size() / 2),
                   rows.end());
  return {std::sqrt(all / norm), rows[rows.size() / 2]};
}

struct Kind {
  const char* name;
  std::vector<int64_t> ratios;
  int64_t hash_layers;
};
void PrintTo(const Kind& kind, std::ostream* out) { *out << kind.name; }

class CudaForwardKinds : public testing::WithParamInterface<Kind>, public CudaEngineTest {};

TEST_P(CudaForwardKinds, StreamsAreTheCpuEngines) {
  const CudaTestModel& made = CudaTestModelOf(GetParam().ratios, GetParam().hash_layers);
  const std::vector<int32_t> tokens = CudaTestTokens(400, 1);
  const size_t width = static_cast<size_t>(made.gpu->config.hc * made.gpu->config.dim);

  Forward cpu(*made.cpu, 2);
  std::vector<float> want;
  cpu.set_layer_probe([&](int64_t layer, int64_t rows, const float* streams) {
    if (layer + 1 != std::ssize(GetParam().ratios)) return;
    want.assign(streams, streams + rows * static_cast<int64_t>(width));
  });
  SessionState session(made.cpu->config, *made.cpu->layout);
  StepItem item;
  item.session = &session;
  item.tokens = tokens;
  item.want = WantLogits::kLast;
  ASSERT_TRUE(cpu.Run({&item, 1}).ok());

  CudaTestEngine engine(*made.gpu);
  const std::vector<float> logits = engine.Run(0, tokens, tokens.size());
  const auto got = engine.forward->Streams();
  ASSERT_TRUE(got.ok()) << got.status();
  ASSERT_EQ(got->size(), want.size());
  const Distance streams = DistanceOf(want, *got, width);
  std::vector<uint16_t> rounded;
  for (const float v : logits) rounded.push_back(kernels::F32ToBf16(v));
  const Distance last = DistanceOf(item.logits, rounded, logits.size());
  // Measured: 0.023 to 0.026 a layer, all five 0.062: activations that differ in their last bit of
  // BF16 fall on the other side of a code of FP8 (a step of 6 to 12 %) now and then.
  const double layers = static_cast<double>(GetParam().ratios.size());
  EXPECT_LT(streams.median_row, 0.035 * std::sqrt(layers));
  EXPECT_LT(streams.relative, 0.08 * std::sqrt(layers));
  EXPECT_LT(last.relative, 0.1);
}

INSTANTIATE_TEST_SUITE_P(Layers, CudaForwardKinds,
                         testing::Values(Kind{"Window", {0}, 0}, Kind{"Hash", {0}, 1},
                                         Kind{"Csa", {4}, 0}, Kind{"Hca", {128}, 0},
                                         Kind{"All", {0, 4, 128, 4, 128}, 2}),
                         [](const auto& kind) { return std::string(kind.param.name); });

TEST_F(CudaForwardTest, ChunksChangeNoBit) {
  const std::vector<int32_t> tokens = CudaTestTokens(400, 2);
  CudaTestEngine engine(*AllKinds().gpu);
  const std::vector<float> whole = engine.Run(0, tokens, 400);
  for (const size_t chunk : {1, 3, 64, 129, 250}) {
    CudaTestEngine other(*AllKinds().gpu);
    EXPECT_EQ(other.Run(1, tokens, chunk), whole) << chunk << " tokens a step";
  }
}

TEST_F(CudaForwardTest, CompanyChangesNoBit) {
  const std::vector<int32_t> a = CudaTestTokens(333, 3), b = CudaTestTokens(7, 4),
                             c = CudaTestTokens(130, 5);
  std::vector<float> alone;
  for (const auto* tokens : {&a, &b, &c}) {
    CudaTestEngine engine(*AllKinds().gpu);
    const std::vector<float> logits = engine.Run(2, *tokens, 600);
    alone.insert(alone.end(), logits.begin(), logits.end());
  }
  CudaTestEngine together(*AllKinds().gpu);
  const std::vector<CudaStepItem> items = {{1, a}, {0, b}, {2, c}};
  ASSERT_TRUE(together.forward->Step(items).ok());
  EXPECT_EQ(together.Logits(), alone);
}

// A step of one token each is a graph; with a sequence of two tokens beside them it is none.
TEST_F(CudaForwardTest, DecodingByGraphIsAsWithout) {
  const std::vector<int32_t> a = CudaTestTokens(126, 6), b = CudaTestTokens(9, 7);
  const std::vector<int32_t> others = CudaTestTokens(12, 8);
  const std::vector<CudaStepItem> items = {{0, a}, {1, b}};
  CudaTestEngine next(*AllKinds().gpu), graph(*AllKinds().gpu), without(*AllKinds().gpu);
  for (const CudaTestEngine* engine : {&next, &graph, &without}) {
    ASSERT_TRUE(engine->forward->Step(items).ok());
  }
  for (int64_t i = 0; i < 6; ++i) {  // past a group of 4 and one of 128
    const auto tokens = graph.forward->NextTokens();
    ASSERT_TRUE(tokens.ok()) << tokens.status();
    const std::vector<int32_t> first = {(*tokens)[0]}, second = {(*tokens)[1]};
    const std::span<const int32_t> two = std::span(others).subspan(static_cast<size_t>(2 * i), 2);
    const absl::Status decoded = next.forward->DecodeNext();
    ASSERT_TRUE(decoded.ok()) << decoded;
    const absl::Status replayed =
        graph.forward->Step(std::vector<CudaStepItem>{{0, first}, {1, second}});
    ASSERT_TRUE(replayed.ok()) << replayed;
    ASSERT_TRUE(
        without.forward->Step(std::vector<CudaStepItem>{{0, first}, {1, second}, {2, two}}).ok());
    std::vector<float> want = without.Logits();
    want.resize(2 * kTestVocab);
    EXPECT_EQ(graph.Logits(), want) << "token " << i;
    EXPECT_EQ(next.Logits(), want) << "token " << i;
  }
  EXPECT_EQ(graph.sessions->position(0), 132);
  EXPECT_EQ(next.sessions->position(0), 132);
}

// What a graph computes is what the step says, whoever was in those before, and in which order.
TEST_F(CudaForwardTest, AGraphIsOfNoSequence) {
  const std::vector<std::vector<int32_t>> prompts = {CudaTestTokens(130, 9), CudaTestTokens(5, 10),
                                                     CudaTestTokens(64, 11)};
  const std::vector<int32_t> behind = CudaTestTokens(4, 12);
  const auto token = [&](size_t i) { return std::span(behind).subspan(i, 1); };
  std::vector<std::vector<float>> alone;
  for (const std::vector<int32_t>& prompt : prompts) {
    CudaTestEngine engine(*AllKinds().gpu);
    engine.Run(0, prompt, 600);
    alone.push_back(engine.Run(0, behind, behind.size()));
  }
  CudaTestEngine engine(*AllKinds().gpu);
  for (size_t i = 0; i < 3; ++i) engine.Run(static_cast<int64_t>(i), prompts[i], 600);
  using Items = std::vector<CudaStepItem>;
  for (const Items& step : {Items{{0, token(0)}, {1, token(0)}}, Items{{2, token(0)}},
                            Items{{2, token(1)}, {0, token(1)}}, Items{{1, token(1)}},
                            Items{{0, token(2)}, {1, token(2)}, {2, token(2)}}}) {
    const absl::Status done = engine.forward->Step(step);
    ASSERT_TRUE(done.ok()) << done;
  }
  ASSERT_TRUE(engine.forward->Step(Items{{1, token(3)}, {2, token(3)}, {0, token(3)}}).ok());
  std::vector<float> want = alone[1];
  for (const size_t i : {2, 0}) want.insert(want.end(), alone[i].begin(), alone[i].end());
  EXPECT_EQ(engine.Logits(), want);

  // And a copy of the first ones', without those behind.
  auto pinned = kernels::cuda::PinnedBuffer::Create(2 * kTestVocab * sizeof(float));
  ASSERT_TRUE(pinned.ok()) << pinned.status();
  const std::span<float> copy(reinterpret_cast<float*>(pinned->bytes().data()), 2 * kTestVocab);
  ASSERT_TRUE(engine.forward->CopyLogits(copy).ok());
  ASSERT_TRUE(kernels::cuda::Synchronize(engine.forward->stream()).ok());
  want.resize(copy.size());
  EXPECT_EQ(std::vector<float>(copy.begin(), copy.end()), want);
}

TEST_F(CudaForwardTest, WhatCannotBeIsRefusedAndNothingChanges) {
  const std::vector<int32_t> good = CudaTestTokens(10, 8),
                             bad = {1, static_cast<int32_t>(kTestVocab)};
  const std::vector<int32_t> long_one = CudaTestTokens(601, 9);
  CudaTestEngine engine(*AllKinds().gpu);
  const auto step = [&](std::span<const int32_t> tokens) {
    const CudaStepItem item{0, tokens};
    return engine.forward->Step({&item, 1}).code();
  };
  EXPECT_EQ(step(bad), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(step({}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(step(long_one), absl::StatusCode::kInvalidArgument);
  const auto steps = [&](const std::vector<CudaStepItem>& items) {
    return engine.forward->Step(items).code();
  };
  EXPECT_EQ(steps({}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(steps({{3, good}}), absl::StatusCode::kInvalidArgument) << "no such slot";
  EXPECT_EQ(steps({{-1, good}}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(steps({{1, good}, {1, good}}), absl::StatusCode::kInvalidArgument) << "twice";
  // 620 tokens would fit, but not three times the longest.
  const std::span<const int32_t> long_as_may_be = std::span(long_one).first(600);
  EXPECT_EQ(steps({{0, good}, {1, long_as_may_be}, {2, good}}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(engine.sessions->position(1), 0);
  engine.sessions->set_position(0, 1020);
  EXPECT_EQ(step(good), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(engine.sessions->position(0), 1020);
}

TEST(CudaConfigTest, ShapesThatTheKernelsDoNotTakeAreNamed) {
  ModelConfig config = CudaTestConfig({0, 4}, 0);
  EXPECT_TRUE(CheckCudaConfig(config).ok());
  config.head_dim = 128;
  const absl::Status refused = CheckCudaConfig(config);
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(refused.message().find("head_dim of 512; the model's is 128"), std::string::npos)
      << refused;
}

}  // namespace
}  // namespace cairn::engine
