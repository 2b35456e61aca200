// Goal: from stored rows alone a session becomes, to the byte, what a cold prefill had made of it.
//
// Method: a sequence is prefilled once, its rows and the state at each block's end are kept. From
// the rows before each end a session is replayed, in steps of many sizes and by several threads;
// its checkpoint must have the bytes of the kept one, and so must the logits that follow. The
// negative tests leave out one token a layer and demand that both change, so these comparisons can
// see.
#include <gtest/gtest.h>

#include <cstring>
#include <map>

#include "engine/forward/test_models.h"
#include "engine/model/presets.h"
#include "engine/model/test_files.h"
#include "store/base/limits.h"

namespace cairn::engine {
namespace {

constexpr int64_t kBlock = kBlockTokens;

struct Kept {
  std::vector<std::shared_ptr<const uint8_t>> rows;
  std::vector<std::vector<uint8_t>> checkpoints;  // [i]: after block i
  Outcome outcome;                                // of all tokens
};

std::vector<uint8_t> CheckpointOf(const SessionState& session) {
  std::vector<uint8_t> bytes(static_cast<size_t>(session.layout().checkpoint_bytes()));
  session.SaveCheckpoint(bytes);
  return bytes;
}

Kept Prefill(const Model& model, std::span<const int32_t> tokens) {
  Forward forward(model, 1);
  SessionState session(model.config, *model.layout);
  Kept kept;
  while (!tokens.empty()) {
    const size_t count = std::min<size_t>(tokens.size(), kBlock);
    Continue(forward, session, tokens.first(count), kBlock, kept.outcome);
    tokens = tokens.subspan(count);
    if (session.position() % kBlock != 0) break;
    kept.rows.push_back(session.rows().Share(session.position() / kBlock - 1));
    kept.checkpoints.push_back(CheckpointOf(session));
  }
  return kept;
}

// Replays to plan.end, `chunk` tokens a step. What layers the steps had is counted by the probe.
SessionState Replay(Forward& forward, const Kept& kept, const ReplayPlan& plan,
                    std::span<const int32_t> tokens, int64_t chunk) {
  const Model& model = forward.model();
  SessionState session(model.config, *model.layout);
  for (int64_t i = 0; i < plan.end / kBlock; ++i) {
    const auto& rows = kept.rows[static_cast<size_t>(i)];
    session.rows().Adopt(rows.get(), rows);
  }
  session.StartReplay(plan);
  std::map<int64_t, int64_t> whole;
  forward.set_layer_probe([&](int64_t layer, int64_t rows, const float*) { whole[layer] += rows; });
  int64_t token_layers = 0;
  while (session.replay() != nullptr) {
    StepItem item;
    item.session = &session;
    const int64_t from = session.position();
    item.tokens = tokens.subspan(static_cast<size_t>(from),
                                 static_cast<size_t>(std::min(chunk, plan.end - from)));
    const absl::Status status = forward.Run({&item, 1});
    EXPECT_TRUE(status.ok()) << status;
    token_layers += item.token_layers;
  }
  forward.set_layer_probe(nullptr);
  EXPECT_EQ(session.position(), plan.end);
  EXPECT_EQ(token_layers, plan.TokenLayers());
  for (int64_t layer = 0; layer < plan.layers; ++layer) {
    EXPECT_EQ(whole[layer], plan.end - plan.WholeFrom(layer)) << "layer " << layer;
  }
  return session;
}

bool SameBits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

// Whether what follows position `from` is as it was in the cold run: logits, and the MTP block's,
// whose row of the last replayed token is the first.
bool FollowsAsCold(Forward& forward, SessionState& session, const Kept& kept,
                   std::span<const int32_t> tokens) {
  const int64_t from = session.position();
  const size_t vocab = static_cast<size_t>(forward.model().config.vocab);
  Outcome outcome;
  Continue(forward, session, tokens.subspan(static_cast<size_t>(from)), 50, outcome);
  const auto tail = [&](const std::vector<float>& all, int64_t first) {
    return std::span(all).subspan(static_cast<size_t>(first) * vocab);
  };
  return SameBits(outcome.logits, tail(kept.outcome.logits, from)) &&
         (kept.outcome.mtp.empty() || SameBits(outcome.mtp, tail(kept.outcome.mtp, from - 1)));
}

// To each block's end from the `first`th on.
void ExpectReplaysAsCold(const Model& model, std::span<const int32_t> tokens, size_t first,
                         int64_t chunk, int threads) {
  const Kept kept = Prefill(model, tokens);
  Forward forward(model, threads);
  ASSERT_LT(first, kept.rows.size());
  for (size_t i = first; i < kept.rows.size(); ++i) {
    const int64_t end = static_cast<int64_t>(i + 1) * kBlock;
    SCOPED_TRACE(testing::Message() << end << " tokens, " << chunk << " a step");
    SessionState session = Replay(forward, kept, ReplayPlan::To(model.config, end), tokens, chunk);
    EXPECT_EQ(CheckpointOf(session), kept.checkpoints[i]);
    EXPECT_TRUE(FollowsAsCold(forward, session, kept, tokens));
  }
}

class Replays : public testing::TestWithParam<Mode> {
 protected:
  // So long that the last two ends are beyond the reach of the model's four layers.
  static std::span<const int32_t> Sequence() {
    static const std::vector<int32_t> tokens = RandomTokens(930, 17);
    return tokens;
  }
  const Model& model() const { return ModelOf(GetParam()); }
  const Kept& Cold() const {
    static auto* all = new std::map<std::string, Kept>;
    const auto it = all->find(GetParam().name);
    if (it != all->end()) return it->second;
    return all->emplace(GetParam().name, Prefill(model(), Sequence())).first->second;
  }
};

TEST_P(Replays, FromEveryBlockEndInStepsOfAnySize) {
  ASSERT_GT(ReplayPlan::To(model().config, 768).From(0), 0);
  struct Way {
    int64_t chunk;
    int threads;
  };
  for (const Way& way : {Way{1000, 1}, Way{127, 2}, Way{50, 3}, Way{3, 1}}) {
    Forward forward(model(), way.threads);
    for (size_t i = 0; i < Cold().rows.size(); ++i) {
      // Small steps are slow, and differ only in where they cut.
      if (way.chunk < 50 && i != 1 && i != 5) continue;
      const int64_t end = static_cast<int64_t>(i + 1) * kBlock;
      SCOPED_TRACE(testing::Message() << end << " tokens, " << way.chunk << " a step");
      SessionState session =
          Replay(forward, Cold(), ReplayPlan::To(model().config, end), Sequence(), way.chunk);
      EXPECT_EQ(CheckpointOf(session), Cold().checkpoints[i]);
      EXPECT_TRUE(FollowsAsCold(forward, session, Cold(), Sequence()));
    }
  }
}

TEST_P(Replays, StoredRowsAreNotTouched) {
  const size_t bytes = static_cast<size_t>(model().layout->rows_entry_bytes());
  std::vector<std::vector<uint8_t>> before;
  for (const auto& rows : Cold().rows) before.emplace_back(rows.get(), rows.get() + bytes);
  Forward forward(model(), 2);
  Replay(forward, Cold(), ReplayPlan::To(model().config, 896), Sequence(), 200);
  for (size_t i = 0; i < before.size(); ++i) {
    EXPECT_EQ(std::memcmp(before[i].data(), Cold().rows[i].get(), bytes), 0) << "block " << i;
  }
}

TEST_P(Replays, OneTokenFewerALayerIsTooFew) {
  ReplayPlan plan = ReplayPlan::To(model().config, 768);
  --plan.reach;
  Forward forward(model(), 1);
  SessionState session = Replay(forward, Cold(), plan, Sequence(), 1000);
  EXPECT_NE(CheckpointOf(session), Cold().checkpoints[5]);
  EXPECT_FALSE(FollowsAsCold(forward, session, Cold(), Sequence()));
}

// A replaying session beside one that prefills and one that decodes; its last step goes beyond the
// replay's end.
TEST_P(Replays, InCompany) {
  Forward forward(model(), 1);
  const std::vector<int32_t> others[] = {RandomTokens(300, 18), RandomTokens(40, 19)};
  const ReplayPlan plan = ReplayPlan::To(model().config, 768);
  std::vector<SessionState> sessions(3, SessionState(model().config, *model().layout));
  for (int64_t i = 0; i < 6; ++i) {
    const auto& rows = Cold().rows[static_cast<size_t>(i)];
    sessions[0].rows().Adopt(rows.get(), rows);
  }
  sessions[0].StartReplay(plan);
  std::vector<float> logits[3];
  const int64_t chunks[] = {100, 43, 1};
  for (bool any = true; any;) {
    std::vector<StepItem> items;
    std::vector<size_t> owners;
    for (size_t s = 0; s < 3; ++s) {
      const auto all = s == 0 ? Sequence() : std::span<const int32_t>(others[s - 1]);
      const std::span<const int32_t> left =
          all.subspan(static_cast<size_t>(sessions[s].position()));
      if (left.empty()) continue;
      StepItem item;
      item.session = &sessions[s];
      item.tokens = left.first(std::min(left.size(), static_cast<size_t>(chunks[s])));
      item.want = item.tokens.size() == left.size() ? WantLogits::kLast : WantLogits::kNone;
      items.push_back(std::move(item));
      owners.push_back(s);
    }
    any = !items.empty();
    if (!any) break;
    ASSERT_TRUE(forward.Run(items).ok());
    for (size_t i = 0; i < items.size(); ++i) logits[owners[i]] = items[i].logits;
  }
  const size_t vocab = static_cast<size_t>(model().config.vocab);
  const auto last = [&](const Outcome& outcome) {
    return std::vector<float>(outcome.logits.end() - static_cast<ptrdiff_t>(vocab),
                              outcome.logits.end());
  };
  EXPECT_EQ(logits[0], last(Cold().outcome));
  for (size_t s : {1u, 2u}) EXPECT_EQ(logits[s], last(RunFresh(model(), others[s - 1], 200)));
}

TEST_P(Replays, LogitsBeforeItsEndAreRefused) {
  Forward forward(model(), 1);
  SessionState session(model().config, *model().layout);
  session.rows().Adopt(Cold().rows[0].get(), Cold().rows[0]);
  session.StartReplay(ReplayPlan::To(model().config, kBlock));
  StepItem item;
  item.session = &session;
  const auto run = [&](size_t count, WantLogits want) {
    item.tokens = Sequence().first(count);
    item.want = want;
    return forward.Run({&item, 1});
  };
  EXPECT_TRUE(absl::IsInvalidArgument(run(kBlock, WantLogits::kLast)));
  EXPECT_TRUE(absl::IsInvalidArgument(run(kBlock + 1, WantLogits::kAll)));
  EXPECT_EQ(session.position(), 0);
  EXPECT_TRUE(run(kBlock + 1, WantLogits::kLast).ok());
}

INSTANTIATE_TEST_SUITE_P(Modes, Replays, testing::ValuesIn(kModes),
                         [](const auto& instance) { return std::string(instance.param.name); });

TEST(ReplayWithoutMtp, IsAsCold) {
  Weights weights = MadeWeights(WeightFormat::kBf16);
  weights.mtp.clear();
  SetLayers(weights.config, 4, 0);
  const std::unique_ptr<Model> model = Pack(weights, Numerics::kKvq);
  const std::vector<int32_t> tokens = RandomTokens(800, 20);
  ASSERT_GT(ReplayPlan::To(model->config, 640).From(0), 0);
  ExpectReplaysAsCold(*model, tokens, 0, 90, 2);
}

TEST(ReplayOfGoldenModels, IsAsCold) {
  for (const auto& [name, numerics] :
       {std::pair{"nano-plain", Numerics::kPlain}, std::pair{"nano-kvq", Numerics::kKvq}}) {
    ExpectReplaysAsCold(*Pack(GoldenWeights(name), numerics), GoldenTokens(name), 0, 100, 2);
  }
}

// The shapes of the real rows and indexer, eight layers.
TEST(ReplayOfMini, IsAsCold) {
  const ModelConfig config = PresetConfig("mini").value();
  const std::vector<int32_t> tokens = RandomTokens(1300, 21);
  ASSERT_GT(ReplayPlan::To(config, 1280).From(0), 0);
  for (const WeightFormat format : {WeightFormat::kBf16, WeightFormat::kFp8Fp4}) {
    const TestFolder folder;
    ASSERT_TRUE(MakeModel({.config = config, .format = format, .seed = 3}, folder / "m").ok());
    const bool full = format == WeightFormat::kFp8Fp4;
    const auto model =
        LoadModel(folder / "m", {.numerics = full ? Numerics::kFull : Numerics::kKvq});
    ASSERT_TRUE(model.ok()) << model.status();
    ExpectReplaysAsCold(**model, tokens, 9, 500, 2);
  }
}

}  // namespace
}  // namespace cairn::engine
