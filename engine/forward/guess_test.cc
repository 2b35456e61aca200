// Goal: a guess costs nothing that lasts. A session that took one back goes on as if it had never
// been computed, and what it leaves for a checkpoint is the same bytes.
#include <gtest/gtest.h>

#include <algorithm>

#include "engine/forward/test_models.h"
#include "store/base/limits.h"

namespace cairn::engine {
namespace {

class GuessTest : public testing::TestWithParam<Mode> {
 protected:
  const Model& model() const { return ModelOf(GetParam()); }
  SessionState NewSession() const { return {model().config, *model().layout}; }

  std::vector<uint8_t> Checkpoint(const SessionState& session) const {
    std::vector<uint8_t> bytes(static_cast<size_t>(model().layout->checkpoint_bytes()));
    session.SaveCheckpoint(bytes);
    return bytes;
  }
  std::vector<uint8_t> Rows(const SessionState& session) const {
    std::vector<uint8_t> bytes;
    for (int64_t b = 0; b < session.rows().count(); ++b) {
      const uint8_t* block = session.rows().Read(b);
      bytes.insert(bytes.end(), block, block + model().layout->rows_entry_bytes());
    }
    return bytes;
  }
};

// Every position of three blocks has a guess, wrong at all of them or at two of three.
TEST_P(GuessTest, TakenBackItWasNeverThere) {
  const int64_t n = 3 * kBlockTokens;
  const std::vector<int32_t> tokens = RandomTokens(n, 5);
  const Outcome plain = RunFresh(model(), tokens, 1);
  SessionState cold = NewSession();
  Forward forward(model(), 2);
  Outcome ignored;
  Continue(forward, cold, tokens, 64, ignored, INT64_MAX);

  for (const bool some_right : {false, true}) {
    SessionState session = NewSession();
    std::vector<float> logits;
    int64_t right = 0;
    while (session.position() < n) {
      const int64_t at = session.position();
      const size_t i = static_cast<size_t>(at);
      std::vector<int32_t> step{tokens[i]};
      const bool guessed = (at + 1) % kBlockTokens != 0;
      const bool keep = some_right && at % 3 == 0;
      if (guessed) step.push_back(keep ? tokens[i + 1] : tokens[i + 1] ^ 1);
      StepItem item;
      item.session = &session;
      item.tokens = step;
      item.guessed = guessed;
      item.want = WantLogits::kAll;
      ASSERT_TRUE(forward.Run(std::span(&item, 1)).ok());
      const auto vocab = static_cast<int64_t>(item.logits.size() / step.size());
      const auto end = keep && guessed ? item.logits.end() : item.logits.begin() + vocab;
      logits.insert(logits.end(), item.logits.begin(), end);
      if (guessed && !keep) session.TakeBack();
      right += guessed && keep ? 1 : 0;
    }
    EXPECT_EQ(logits, plain.logits);
    EXPECT_EQ(Rows(session), Rows(cold));
    EXPECT_EQ(Checkpoint(session), Checkpoint(cold));
    EXPECT_EQ(right > 0, some_right);
  }
}

// Draft says what the MTP block says in Run, and leaves no trace.
TEST_P(GuessTest, DraftsAreTheMtpBlocksGuesses) {
  const std::vector<int32_t> tokens = RandomTokens(150, 6);
  const Outcome plain = RunFresh(model(), tokens, 150);
  Forward forward(model(), 2);
  SessionState first = NewSession();
  SessionState second = NewSession();
  Outcome ignored;
  Continue(forward, first, std::span(tokens).first(97), 50, ignored, INT64_MAX);
  Continue(forward, second, std::span(tokens).first(131), 50, ignored, INT64_MAX);
  DraftItem items[] = {{&first, tokens[97], {}}, {&second, tokens[131], {}}};
  ASSERT_TRUE(forward.Draft(items).ok());
  const auto vocab = static_cast<size_t>(model().config.vocab);
  for (const auto& [item, at] : {std::pair(&items[0], 96u), std::pair(&items[1], 130u)}) {
    const auto from = plain.mtp.begin() + static_cast<int64_t>(at * vocab);
    EXPECT_EQ(item->logits, std::vector<float>(from, from + static_cast<int64_t>(vocab)));
  }
  Outcome rest;
  Continue(forward, first, std::span(tokens).subspan(97), 1, rest, 96);
  const auto from = plain.logits.begin() + static_cast<int64_t>(97 * vocab);
  EXPECT_EQ(rest.logits, std::vector<float>(from, plain.logits.end()));
}

INSTANTIATE_TEST_SUITE_P(Modes, GuessTest, testing::ValuesIn(kModes),
                         [](const auto& mode) { return std::string(mode.param.name); });

}  // namespace
}  // namespace cairn::engine
