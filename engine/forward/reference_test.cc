// The fast code of forward/ against the slow code of reference/: idea by idea with made inputs, and
// whole.
//
// Measures: nothing quantised, rounding errors only. With quantisation a value near the middle of
// two codes may fall to the other side in one of the two, so a share of the values may be further
// off; what that share then does to everything behind it is why whole models are compared by their
// mean.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "engine/forward/step.h"
#include "engine/forward/test_models.h"
#include "engine/reference/attention.h"
#include "engine/reference/compressor.h"
#include "engine/reference/hyper_connection.h"
#include "engine/reference/indexer.h"
#include "engine/reference/model.h"
#include "engine/reference/moe.h"
#include "kernels/cpu/linear.h"

namespace cairn::engine {
namespace {

using reference::Rows;

Rows RandomRows(int64_t count, int64_t width, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, 1.0f);
  Rows rows(count, width);
  for (float& v : rows.values) v = normal(random);
  return rows;
}

double Deviation(std::span<const float> values) {
  double sum = 0, squares = 0;
  for (const float v : values) {
    sum += static_cast<double>(v);
    squares += static_cast<double>(v) * static_cast<double>(v);
  }
  const double n = static_cast<double>(values.size());
  return std::sqrt(std::max(squares / n - sum / n * (sum / n), 0.0));
}

// All values within `near` times the deviation, but for a share of `flips`.
void ExpectClose(std::span<const float> got, std::span<const float> expected, double near,
                 double flips, const std::string& what) {
  ASSERT_EQ(got.size(), expected.size()) << what;
  ASSERT_FALSE(got.empty()) << what;
  const double deviation = Deviation(expected);
  size_t far = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double d = std::fabs(static_cast<double>(got[i]) - static_cast<double>(expected[i]));
    ASSERT_TRUE(std::isfinite(d)) << what << " at " << i;
    far += d > near * deviation ? 1 : 0;
  }
  EXPECT_LE(static_cast<double>(far), flips * static_cast<double>(got.size()))
      << what << ": " << far << " of " << got.size();
}

// One step over rows of a fresh session.
struct Rig {
  Rig(const Mode& mode, int64_t rows)
      : model(ModelOf(mode)),
        weights(MadeWeights(mode.format)),
        setup{model.config, mode.numerics, mode.rope_rows},
        pool(2),
        session(model.config, *model.layout),
        step{model, pool, workspace, {{&session, 0, rows, 0}}, RandomTokens(rows, 3), {}} {
    for (int64_t r = 0; r < rows; ++r) step.positions.push_back(r);
  }
  const Model& model;
  const Weights& weights;
  const reference::Setup setup;
  kernels::ThreadPool pool;
  Workspace workspace;
  SessionState session;
  Step step;
};

class Idea : public testing::TestWithParam<Mode> {
 protected:
  bool plain() const { return GetParam().numerics == Numerics::kPlain; }
  // The share of values that roundings may turn over.
  double flips() const { return plain() ? 0.0 : 2e-3; }
};

TEST_P(Idea, HyperConnection) {
  Rig rig(GetParam(), 37);
  const ModelConfig& config = rig.model.config;
  const Rows streams = RandomRows(37, config.hc * config.dim, 1);
  for (size_t layer = 0; layer < rig.model.layers.size(); ++layer) {
    const reference::HcMixed mixed =
        reference::HcMix(rig.setup, rig.weights.layers[layer].hc_attn, streams);
    Rows x = mixed.x;
    Rows post = mixed.post;
    Rows comb = mixed.comb;
    HcMix(rig.step, rig.model.layers[layer].hc_attn, streams.values.data(), 37, x.values.data(),
          post.values.data(), comb.values.data());
    ExpectClose(x.values, mixed.x.values, 1e-5, 0, "x");
    ExpectClose(post.values, mixed.post.values, 1e-5, 0, "post");
    ExpectClose(comb.values, mixed.comb.values, 1e-5, 0, "comb");

    const Rows f = RandomRows(37, config.dim, 2);
    Rows expected = streams;
    Rows merged = streams;
    reference::HcMerge(rig.setup, f, mixed, expected);
    HcMerge(rig.step, f.values.data(), mixed.post.values.data(), mixed.comb.values.data(), 37,
            merged.values.data());
    ExpectClose(merged.values, expected.values, 1e-5, 0, "merged");
  }
  const Rows expected = reference::HcCollapse(rig.setup, rig.weights.hc_head, streams);
  Rows collapsed = expected;
  HcCollapse(rig.step, rig.model.head.hc, streams.values.data(), 37, collapsed.values.data());
  ExpectClose(collapsed.values, expected.values, 1e-5, 0, "collapsed");
}

TEST_P(Idea, Compressors) {
  const int64_t n = 260;
  Rig rig(GetParam(), n);
  const KvLayout& layout = *rig.model.layout;
  const Rows x = RandomRows(n, rig.model.config.dim, 4);
  const auto check = [&](size_t layer, CompressorRole role) {
    const bool indexer = role == CompressorRole::kIndexer;
    const BlockOp& block = rig.model.layers[layer];
    const AttentionWeights& w = rig.weights.layers[layer].attn;
    RunCompressor(rig.step, block, role, x.values.data());
    const Rows expected = reference::Compress(
        rig.setup, indexer ? w.indexer.compressor : w.compressor, block.ratio, indexer, x);
    Rows rows(expected.count, expected.width);
    for (int64_t j = 0; j < rows.count; ++j) {
      rig.session.ReadRow(indexer ? layout.layers()[layer].index_rows : layout.layers()[layer].rows,
                          indexer ? layout.index_codec() : layout.row_codec(), j, rows[j].data());
    }
    ExpectClose(rows.values, expected.values, 1e-5, flips(),
                "layer " + std::to_string(layer) + (indexer ? " indexer" : ""));
  };
  check(1, CompressorRole::kMain);
  check(1, CompressorRole::kIndexer);
  check(2, CompressorRole::kMain);
  check(3, CompressorRole::kIndexer);
}

TEST_P(Idea, SelectedRows) {
  const int64_t n = 150;
  Rig rig(GetParam(), n);
  const Rows x = RandomRows(n, rig.model.config.dim, 5);
  const Rows qr = RandomRows(n, rig.model.config.q_lora, 6);
  for (const size_t layer : {1u, 3u}) {
    const BlockOp& block = rig.model.layers[layer];
    RunCompressor(rig.step, block, CompressorRole::kIndexer, x.values.data());
    LinearInput latent(rig.step, qr.values.data(), n, qr.width);
    LinearInput input(rig.step, x.values.data(), n, x.width);
    std::vector<std::vector<int32_t>> selected;
    SelectRows(rig.step, block, latent, input, selected);
    const auto expected =
        reference::SelectRows(rig.setup, rig.weights.layers[layer].attn.indexer, qr, x);
    ASSERT_EQ(selected.size(), expected.size());
    int64_t different = 0;
    for (size_t p = 0; p < expected.size(); ++p) {
      ASSERT_EQ(selected[p].size(), expected[p].size()) << p;
      EXPECT_TRUE(std::is_sorted(selected[p].begin(), selected[p].end())) << p;
      if (!std::equal(expected[p].begin(), expected[p].end(), selected[p].begin())) ++different;
    }
    // A score that is off by a rounding may change places with its neighbour.
    EXPECT_LE(different, plain() ? 0 : 3) << "layer " << layer;
  }
}

TEST_P(Idea, Attention) {
  const int64_t n = 140;
  Rig rig(GetParam(), n);
  const Rows x = RandomRows(n, rig.model.config.dim, 7);
  for (const size_t layer : {0u, 1u, 2u}) {
    const BlockOp& block = rig.model.layers[layer];
    const Rows expected =
        reference::Attention(rig.setup, rig.weights.layers[layer].attn, block.ratio, x);
    Rows got(n, x.width);
    AttentionLayer(rig.step, block, x.values.data(), got.values.data());
    // A turned code moves one of a hundred or more rows that are summed.
    ExpectClose(got.values, expected.values, plain() ? 2e-5 : 2e-2, plain() ? 0.0 : 1e-2,
                "layer " + std::to_string(layer));
  }
}

TEST_P(Idea, Experts) {
  const int64_t n = 50;
  Rig rig(GetParam(), n);
  Rows x = RandomRows(n, rig.model.config.dim, 8);
  for (float& v : x.values) v *= 1.5f;  // so that the clamps are reached
  for (const size_t layer : {0u, 3u}) {
    const Rows expected =
        reference::Moe(rig.setup, rig.weights.layers[layer].ffn, rig.step.tokens, x);
    Rows got(n, x.width);
    ASSERT_TRUE(
        MoeLayer(rig.step, rig.model.layers[layer].ffn, x.values.data(), got.values.data()).ok());
    const bool rounded = RoundsInputs(GetParam().numerics);
    ExpectClose(got.values, expected.values, rounded ? 5e-2 : 2e-5, rounded ? 1e-2 : 0.0,
                "layer " + std::to_string(layer));
  }
}

// Mean difference as a share of the deviation; rounded inputs make small differences grow from
// layer to layer (two float formats of the reference's own code are 5 % apart).
TEST_P(Idea, WholeModel) {
  const Mode& mode = GetParam();
  const std::vector<int32_t> tokens = RandomTokens(136, 10);
  const Outcome fast = RunFresh(ModelOf(mode), tokens, 100, 2);
  const reference::Output slow =
      reference::RunModel(MadeWeights(mode.format), mode.numerics, mode.rope_rows, tokens);
  const double allowed = plain() ? 1e-5 : mode.numerics == Numerics::kKvq ? 1e-3 : 8e-2;
  const auto check = [&](std::span<const float> got, std::span<const float> expected,
                         const std::string& what) {
    ASSERT_EQ(got.size(), expected.size()) << what;
    double sum = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      sum += std::fabs(static_cast<double>(got[i]) - static_cast<double>(expected[i]));
    }
    EXPECT_LE(sum / static_cast<double>(got.size()), allowed * Deviation(expected)) << what;
  };
  check(fast.logits, slow.logits.values, "logits");
  check(fast.mtp, slow.mtp_logits.values, "MTP logits");
}

INSTANTIATE_TEST_SUITE_P(Modes, Idea, testing::ValuesIn(kModes),
                         [](const auto& instance) { return std::string(instance.param.name); });

// Both sides multiply by the identity matrix, so each output is one expanded weight.
TEST(Reference, ExpandedWeightsAreTheSameToTheBit) {
  const Weights& weights = MadeWeights(WeightFormat::kFp8Fp4);
  const Model& model = ModelOf(kModes[3]);
  kernels::ThreadPool pool(1);
  const auto check = [&](const LinearOp& op, const LinearWeight& w, int64_t begin, DType type,
                         const std::string& what) {
    ASSERT_EQ(w.weight.dtype, type) << what;
    Rows identity(w.in, w.in);
    for (int64_t i = 0; i < w.in; ++i) identity[i][static_cast<size_t>(i)] = 1.0f;
    const Rows expected = reference::LinearSlice(w, begin, op.w.n(), identity);
    Rows got(w.in, op.w.n());
    kernels::Linear(pool, op.w, identity.values.data(), w.in, w.in, got.values.data(), op.w.n());
    EXPECT_EQ(got.values, expected.values) << what;
  };
  const AttentionWeights& attn = weights.layers[1].attn;
  const AttentionOp& op = model.layers[1].attn;
  check(op.wq_b, attn.wq_b, 0, DType::kF8E4M3, "wq_b");
  for (const size_t g : {0u, 1u}) {
    check(op.wo_a[g], attn.wo_a, static_cast<int64_t>(g) * model.config.o_lora, DType::kF8E4M3,
          "wo_a of group " + std::to_string(g));
  }
  check(op.indexer.weights_proj, attn.indexer.weights_proj, 0, DType::kBF16, "weights_proj");
  const ExpertWeights& expert = weights.layers[1].ffn.experts[2];
  ExpertCache::Use use(*model.experts, 1, {2});
  const absl::StatusOr<const ExpertOp*> packed = use.Next();
  ASSERT_TRUE(packed.ok()) << packed.status();
  check((*packed)->w1, expert.w1, 0, DType::kI8, "w1");
  check((*packed)->w2, expert.w2, 0, DType::kI8, "w2");
  check(model.layers[1].ffn.shared.w3, weights.layers[1].ffn.shared.w3, 0, DType::kF8E4M3,
        "shared w3");
}

// The reference itself, so that two equal mistakes do not agree with each other.
TEST(Reference, MatchesTheGoldenLogits) {
  for (const Mode& mode : {kModes[0], kModes[2]}) {
    const std::string name = mode.numerics == Numerics::kPlain ? "nano-plain" : "nano-kvq";
    const std::vector<int32_t> tokens = GoldenTokens(name);
    const reference::Output out = reference::RunModel(GoldenWeights(name), mode.numerics,
                                                      mode.rope_rows, std::span(tokens).first(150));
    const std::vector<float> golden = GoldenValues(name, "prefill.logits");
    const std::span<const float> first = std::span(golden).first(out.logits.values.size());
    ExpectClose(out.logits.values, first, mode.numerics == Numerics::kPlain ? 1e-4 : 1e-2,
                mode.numerics == Numerics::kPlain ? 0.0 : 1e-3, name);
  }
}

}  // namespace
}  // namespace cairn::engine
