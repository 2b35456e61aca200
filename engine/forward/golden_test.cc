// The engine against the golden sets: tiny models whose logits, streams and states were computed
// from the official formulas in float64.
//
// Goal: every term of the architecture is there and in its place. Measures: nothing quantised,
// every value within 1e-3; quantised KV rows, a mean difference of at most 0.1 % of the golden
// values' standard deviation and 99.9 % within 2e-2 (a value near the middle of two codes may fall
// to the other side, and then everything behind it moves a little).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "engine/forward/test_models.h"

namespace cairn::engine {
namespace {

constexpr int64_t kHiddenPositions = 4;
constexpr int64_t kMtpPositions = 8;

struct Set {
  const char* name;
  Numerics numerics;
};
void PrintTo(const Set& set, std::ostream* out) { *out << set.name; }

// A golden set and what the engine makes of it: a prefill in one step, the decode token by token.
struct Played {
  std::unique_ptr<Model> model;
  std::unique_ptr<SessionState> prefilled;
  std::vector<float> prefill, decode, mtp;
  std::map<int64_t, std::vector<float>> hidden;  // by layer, the last positions
};

Played Play(const Set& set) {
  Played played;
  played.model = Pack(GoldenWeights(set.name), set.numerics, RopeRows::kF32);
  const Model& model = *played.model;
  const std::vector<int32_t> tokens = GoldenTokens(set.name);
  const size_t n =
      GoldenValues(set.name, "prefill.logits").size() / static_cast<size_t>(model.config.vocab);
  const std::span<const int32_t> prompt = std::span(tokens).first(n);
  const int64_t mtp_from = static_cast<int64_t>(n) - kMtpPositions;
  Forward forward(model, 2);
  forward.set_layer_probe([&](int64_t layer, int64_t rows, const float* streams) {
    const int64_t width = model.config.hc * model.config.dim;
    played.hidden[layer].assign(streams + (rows - kHiddenPositions) * width,
                                streams + rows * width);
  });
  played.prefilled = std::make_unique<SessionState>(model.config, *model.layout);
  Outcome prefill;
  Continue(forward, *played.prefilled, prompt, static_cast<int64_t>(n), prefill, mtp_from);
  forward.set_layer_probe(nullptr);

  // Another session decodes, so that the first keeps the state at the prompt's end.
  SessionState session(model.config, *model.layout);
  Outcome all;
  Continue(forward, session, prompt, static_cast<int64_t>(n), all, mtp_from);
  EXPECT_EQ(all, prefill);
  Continue(forward, session, std::span(tokens).subspan(n), 1, all, mtp_from);
  const auto decode = all.logits.begin() + static_cast<std::ptrdiff_t>(prefill.logits.size());
  played.prefill.assign(all.logits.begin(), decode);
  played.decode.assign(decode, all.logits.end());
  all.mtp.resize(static_cast<size_t>(kMtpPositions * model.config.vocab));
  played.mtp = std::move(all.mtp);
  return played;
}

class Golden : public testing::TestWithParam<Set> {
 protected:
  static const Played& Get() {
    static auto* all = new std::map<std::string, Played>;
    const auto it = all->find(GetParam().name);
    if (it != all->end()) return it->second;
    return all->emplace(GetParam().name, Play(GetParam())).first->second;
  }
  static std::vector<float> Values(const std::string& tensor) {
    return GoldenValues(GetParam().name, tensor);
  }

  static void ExpectClose(std::span<const float> got, std::span<const float> golden,
                          const std::string& what) {
    ASSERT_EQ(got.size(), golden.size()) << what;
    double sum = 0, mean = 0, squares = 0, most = 0;
    size_t far = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      const double g = static_cast<double>(golden[i]);
      const double d = std::fabs(static_cast<double>(got[i]) - g);
      ASSERT_TRUE(std::isfinite(d)) << what << " at " << i;
      sum += d;
      most = std::max(most, d);
      mean += g;
      squares += g * g;
      far += d > 2e-2 ? 1 : 0;
    }
    const double n = static_cast<double>(got.size());
    const double deviation = std::sqrt(std::max(squares / n - mean / n * (mean / n), 0.0));
    if (GetParam().numerics == Numerics::kPlain) {
      EXPECT_LE(most, 1e-3) << what;
    } else {
      EXPECT_LE(sum / n, 1e-3 * deviation) << what;
      EXPECT_LE(static_cast<double>(far), 1e-3 * n) << what;
    }
  }

  // Where the golden best is ahead by more than 1e-2, ours is the same.
  static void ExpectSameBest(const std::vector<float>& got, const std::vector<float>& golden,
                             int64_t vocab) {
    for (auto g = golden.begin(), x = got.begin(); g != golden.end(); g += vocab, x += vocab) {
      std::vector<float> sorted(g, g + vocab);
      std::partial_sort(sorted.begin(), sorted.begin() + 2, sorted.end(), std::greater<>());
      if (sorted[0] - sorted[1] <= 1e-2f) continue;
      EXPECT_EQ(std::max_element(x, x + vocab) - x, std::max_element(g, g + vocab) - g)
          << "at position " << (g - golden.begin()) / vocab;
    }
  }
};

TEST_P(Golden, Logits) {
  const Played& played = Get();
  const int64_t vocab = played.model->config.vocab;
  const auto check = [&](const std::vector<float>& got, const std::string& tensor) {
    const std::vector<float> golden = Values(tensor);
    ExpectClose(got, golden, tensor);
    if (GetParam().numerics == Numerics::kPlain) ExpectSameBest(got, golden, vocab);
  };
  check(played.prefill, "prefill.logits");
  check(played.decode, "decode.logits");
  check(played.mtp, "prefill.mtp_logits");
}

TEST_P(Golden, StreamsAfterEveryLayer) {
  const Played& played = Get();
  for (int64_t layer = 0; layer < played.model->config.layers; ++layer) {
    const std::string tensor = "prefill.hidden." + std::to_string(layer);
    ExpectClose(played.hidden.at(layer), Values(tensor), tensor);
  }
}

TEST_P(Golden, WindowsInRingOrder) {
  const Played& played = Get();
  const ModelConfig& config = played.model->config;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    std::vector<float> rows(static_cast<size_t>(config.window * config.head_dim));
    for (int64_t slot = 0; slot < config.window; ++slot) {
      played.prefilled->layer(layer).window.Get(slot, rows.data() + slot * config.head_dim);
    }
    const std::string tensor = "state_prefill." + std::to_string(layer) + ".window_kv";
    ExpectClose(rows, Values(tensor), tensor);
  }
}

TEST_P(Golden, CompressedRowsAndIndexerKeys) {
  const Played& played = Get();
  const ModelConfig& config = played.model->config;
  const KvLayout& layout = *played.model->layout;
  const auto check = [&](const ComponentSlot& slot, const kernels::RowCodec& codec,
                         const std::string& tensor) {
    const std::vector<float> golden = Values(tensor);
    std::vector<float> rows(golden.size());
    for (int64_t j = 0; j < static_cast<int64_t>(golden.size()) / codec.dim(); ++j) {
      played.prefilled->ReadRow(slot, codec, j, rows.data() + j * codec.dim());
    }
    ExpectClose(rows, golden, tensor);
  };
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    const LayerSlots& slots = layout.layers()[static_cast<size_t>(layer)];
    const std::string prefix = "state_prefill." + std::to_string(layer);
    if (slots.ratio > 0) check(slots.rows, layout.row_codec(), prefix + ".compressed_kv");
    if (slots.ratio == 4) check(slots.index_rows, layout.index_codec(), prefix + ".indexer_kv");
  }
}

// Spec 2.10: of the reference's buffers only some values are ever read again, and only these are
// kept. Ratio 4: rows 0..3, channels [0, D), are the overlap; rows from 4 on are the open group.
TEST_P(Golden, CompressorStatesThatAreReadAgain) {
  const Played& played = Get();
  const auto check = [&](const CompressorState& state, int64_t ratio, int64_t dim,
                         const std::string& prefix) {
    const int64_t width = ratio == 4 ? 2 * dim : dim;
    const int64_t open = played.prefilled->position() % ratio;
    ASSERT_GT(open, 0);
    for (const bool is_score : {false, true}) {
      const std::string tensor = prefix + (is_score ? ".score_state" : ".kv_state");
      const std::vector<float> golden = Values(tensor);
      const std::span<const float> rows(golden);
      const int64_t first = ratio == 4 ? 4 : 0;
      const std::vector<float>& partial = is_score ? state.partial.score : state.partial.kv;
      ExpectClose(
          partial,
          rows.subspan(static_cast<size_t>(first * width), static_cast<size_t>(open * width)),
          tensor + ", the open group");
      for (int64_t i = 0; i < first; ++i) {
        const float* kept = is_score ? state.overlap.score(i, dim) : state.overlap.kv(i, dim);
        ExpectClose({kept, static_cast<size_t>(dim)},
                    rows.subspan(static_cast<size_t>(i * width), static_cast<size_t>(dim)),
                    tensor + ", overlap row " + std::to_string(i));
      }
    }
  };
  const ModelConfig& config = played.model->config;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    const int64_t ratio = config.ratio(layer);
    const LayerState& state = played.prefilled->layer(layer);
    const std::string prefix = "state_prefill." + std::to_string(layer);
    if (ratio > 0) check(state.main, ratio, config.head_dim, prefix + ".compressor");
    if (ratio == 4) check(state.indexer, ratio, config.index_dim, prefix + ".indexer");
  }
}

INSTANTIATE_TEST_SUITE_P(Sets, Golden,
                         testing::Values(Set{"nano-plain", Numerics::kPlain},
                                         Set{"nano-kvq", Numerics::kKvq}),
                         [](const auto& instance) {
                           return instance.param.numerics == Numerics::kPlain ? "plain" : "kvq";
                         });

}  // namespace
}  // namespace cairn::engine
