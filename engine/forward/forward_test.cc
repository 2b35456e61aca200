// Requests that cannot be, and which outputs a step gives.
//
// Goal: a refused step changes nothing: the session goes on to the same bits as one that never saw
// it.
#include "engine/forward/forward.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/forward/test_models.h"

namespace cairn::engine {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

const Model& AnyModel() { return ModelOf(kModes[1]); }

SessionState NewSession() { return SessionState(AnyModel().config, *AnyModel().layout); }

absl::Status RunTokens(Forward& forward, SessionState& session, std::vector<int32_t> tokens) {
  StepItem item;
  item.session = &session;
  item.tokens = tokens;
  return forward.Run({&item, 1});
}

TEST(Forward, TokenOutsideOfTheVocabularyIsNamedAndChangesNothing) {
  const std::vector<int32_t> tokens = RandomTokens(140, 1);
  Forward forward(AnyModel(), 1);
  SessionState session = NewSession();
  Outcome outcome;
  Continue(forward, session, std::span(tokens).first(131), 131, outcome);
  for (const int32_t bad : {-1, 64, INT32_MAX}) {
    const absl::Status status = RunTokens(forward, session, {3, 4, bad, 5});
    EXPECT_TRUE(absl::IsInvalidArgument(status));
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr("token " + std::to_string(bad)), HasSubstr("position 133"),
                      HasSubstr("vocabulary of 64")));
    EXPECT_EQ(session.position(), 131);
  }
  Continue(forward, session, std::span(tokens).subspan(131), 4, outcome);
  EXPECT_EQ(outcome, RunFresh(AnyModel(), tokens, 140));
}

TEST(Forward, OneBadSequenceRefusesTheWholeStep) {
  const std::vector<int32_t> tokens = RandomTokens(20, 2);
  const std::vector<int32_t> bad = {1, 99};
  Forward forward(AnyModel(), 1);
  SessionState good_session = NewSession();
  SessionState bad_session = NewSession();
  std::vector<StepItem> items(2);
  items[0].session = &good_session;
  items[0].tokens = tokens;
  items[1].session = &bad_session;
  items[1].tokens = bad;
  EXPECT_TRUE(absl::IsInvalidArgument(forward.Run(items)));
  EXPECT_EQ(good_session.position(), 0);
  Outcome outcome;
  Continue(forward, good_session, tokens, 20, outcome);
  EXPECT_EQ(outcome, RunFresh(AnyModel(), tokens, 20));
}

TEST(Forward, SequenceOverTheMaximumIsRefusedWithBothLengths) {
  const std::vector<int32_t> tokens = RandomTokens(1025, 3);
  Forward forward(AnyModel(), 1);
  SessionState session = NewSession();
  const absl::Status status = RunTokens(forward, session, tokens);
  EXPECT_TRUE(absl::IsOutOfRange(status));
  EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("1025"), HasSubstr("1024")));
  EXPECT_EQ(session.position(), 0);
  Outcome outcome;
  Continue(forward, session, std::span(tokens).first(1024), 256, outcome, INT64_MAX);
  EXPECT_TRUE(absl::IsOutOfRange(RunTokens(forward, session, {1})));
  EXPECT_EQ(session.position(), 1024);
}

TEST(Forward, EmptyStepIsRefused) {
  Forward forward(AnyModel(), 1);
  SessionState session = NewSession();
  EXPECT_TRUE(absl::IsInvalidArgument(RunTokens(forward, session, {})));
}

TEST(Forward, ScratchMemoryIsAChunksAndNotAPrompts) {
  const std::vector<int32_t> tokens = RandomTokens(1024, 6);
  const auto scratch = [&](int64_t count, int64_t chunk) {
    Forward forward(AnyModel(), 1);
    SessionState session = NewSession();
    for (int64_t at = 0; at < count; at += chunk) {
      const auto from = tokens.begin() + at;
      EXPECT_TRUE(RunTokens(forward, session, {from, from + chunk}).ok());
    }
    return forward.scratch_floats_max();
  };
  // Four times the prompt adds the scores of a span against its index rows and the decoded HCA
  // rows; twice the chunk adds all activations again.
  EXPECT_LT(scratch(1024, 64), scratch(256, 64) * 5 / 4);
  EXPECT_GT(scratch(256, 128), scratch(256, 64) * 5 / 4);
}

TEST(Forward, GivesTheLogitsThatWereAskedFor) {
  const std::vector<int32_t> tokens = RandomTokens(9, 4);
  const size_t vocab = static_cast<size_t>(AnyModel().config.vocab);
  const Outcome all = RunFresh(AnyModel(), tokens, 9);
  Forward forward(AnyModel(), 1);
  for (const WantLogits want : {WantLogits::kNone, WantLogits::kLast, WantLogits::kAll}) {
    SessionState session = NewSession();
    StepItem item;
    item.session = &session;
    item.tokens = tokens;
    item.want = want;
    ASSERT_TRUE(forward.Run({&item, 1}).ok());
    const size_t rows = want == WantLogits::kNone ? 0 : want == WantLogits::kLast ? 1 : 9;
    EXPECT_EQ(item.logits,
              std::vector<float>(all.logits.end() - static_cast<std::ptrdiff_t>(rows * vocab),
                                 all.logits.end()));
  }
}

TEST(Forward, MtpGivesEachPositionOnceFromTheOneAskedFor) {
  const std::vector<int32_t> tokens = RandomTokens(150, 5);
  const size_t vocab = static_cast<size_t>(AnyModel().config.vocab);
  const Outcome all = RunFresh(AnyModel(), tokens, 150);
  ASSERT_EQ(all.mtp.size(), 149 * vocab);
  for (const int64_t from : {0, 40, 148, 149}) {
    Forward forward(AnyModel(), 1);
    SessionState session = NewSession();
    std::vector<int64_t> positions;
    std::vector<float> logits;
    for (size_t begin = 0; begin < tokens.size(); begin += 30) {
      StepItem item;
      item.session = &session;
      item.tokens = std::span(tokens).subspan(begin, 30);
      item.mtp_from = from;
      item.on_mtp = [&](int64_t position, std::span<const float> values) {
        positions.push_back(position);
        logits.insert(logits.end(), values.begin(), values.end());
      };
      ASSERT_TRUE(forward.Run({&item, 1}).ok());
    }
    ASSERT_EQ(positions.size(), static_cast<size_t>(149 - from));
    for (size_t i = 0; i < positions.size(); ++i) {
      EXPECT_EQ(positions[i], from + static_cast<int64_t>(i));
    }
    // Rows that were only appended to the window count as much as computed ones.
    EXPECT_TRUE(std::equal(logits.begin(), logits.end(),
                           all.mtp.begin() + from * static_cast<int64_t>(vocab), all.mtp.end()));
  }
}

}  // namespace
}  // namespace cairn::engine
