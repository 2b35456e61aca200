// Goal: speculation changes no answer. Method: answers with guesses, right ones and wrong ones, are
// compared with those without, to the bits of the logits.
#include <algorithm>

#include "engine/serve/scheduler_rig.h"
#include "store/base/random.h"

namespace cairn::engine {
namespace {

std::vector<GenerationRequest> Requests() {
  SeededRandom random(9);
  std::vector<GenerationRequest> requests;
  for (uint64_t i = 0; i < 16; ++i) {
    GenerationRequest request =
        Request(1 + random.Next() % 200, 1 + static_cast<int64_t>(random.Next() % 60), i);
    request.sampling.temperature = i % 4 == 0 ? 0 : 1;
    if (i % 3 == 0) request.sampling.top_p = 0.9;
    if (i % 5 == 0) request.sampling.repetition_penalty = 1.3;
    requests.push_back(request);
  }
  // Ends by a token that can be a guess.
  requests[1].stop_tokens = {7, 8, 9};
  requests[2].stop = {"a", "b"};
  return requests;
}

// Guesses that are right two times of three, whatever the model's own are.
Scheduler::Guesser MostlyRight(const std::vector<Answer>& answers) {
  return [&answers](const GenerationRequest& request, int64_t position, int32_t) {
    const std::vector<int32_t> ids = Ids(answers[request.sampling.seed]);
    const auto at = static_cast<size_t>(position - std::ssize(request.prompt));
    const int32_t right = at < ids.size() ? ids[at] : 0;
    return position % 3 == 0 ? right ^ 1 : right;
  };
}

TEST(Speculation, AnswersAreThoseWithout) {
  const std::vector<GenerationRequest> requests = Requests();
  std::vector<Answer> alone;
  uint64_t steps = 0;
  for (const GenerationRequest& request : requests) {
    Rig rig;
    alone.push_back(rig.Finish(*rig.Submit(request), request.sampling.seed));
    steps += rig.metrics.steps;
  }
  for (const bool own_guesses : {true, false}) {
    uint64_t speculated_steps = 0;
    for (size_t i = 0; i < requests.size(); ++i) {
      Rig rig({.speculate = true});
      if (!own_guesses) rig.scheduler.set_guesser(MostlyRight(alone));
      ExpectSame(rig.Finish(*rig.Submit(requests[i]), i), alone[i]);
      speculated_steps += rig.metrics.steps;
    }
    EXPECT_LE(speculated_steps, steps);
    if (!own_guesses) {
      EXPECT_LT(speculated_steps, steps * 3 / 4);
    }

    Rig together({.step_tokens = 40, .sequences_max = 9, .speculate = true});
    if (!own_guesses) together.scheduler.set_guesser(MostlyRight(alone));
    std::vector<std::shared_ptr<Generation>> all;
    for (const GenerationRequest& request : requests) all.push_back(together.Submit(request));
    for (size_t i = 0; i < requests.size(); ++i) ExpectSame(together.Finish(*all[i], i), alone[i]);
    EXPECT_GT(together.metrics.drafted_tokens, together.metrics.accepted_tokens);
    if (!own_guesses) {
      EXPECT_GT(together.metrics.accepted_tokens * 2, together.metrics.drafted_tokens);
    }
    EXPECT_EQ(together.metrics.kv_bytes_used, 0);
  }
}

// The last token of an answer is not computed, so nothing is guessed behind it; steps keep their
// budget, guesses included.
TEST(Speculation, GuessesOnlyWhatMayBeUsedAndWithinTheBudget) {
  Rig two({.speculate = true});
  two.Finish(*two.Submit(Request(10, 2, 1)), 1);
  EXPECT_EQ(two.metrics.drafted_tokens, 0u);
  Rig three({.speculate = true});
  three.Finish(*three.Submit(Request(10, 3, 1)), 1);
  EXPECT_EQ(three.metrics.drafted_tokens, 1u);

  Rig rig({.step_tokens = 5, .sequences_max = 4, .speculate = true});
  for (uint64_t i = 0; i < 4; ++i) rig.Submit(Request(1, 40, i));
  uint64_t before = 0;
  while (rig.scheduler.Step()) {
    EXPECT_LE(rig.metrics.computed_tokens - before, 5u);
    before = rig.metrics.computed_tokens;
  }
  EXPECT_EQ(rig.metrics.requests_at_length, 4u);
  EXPECT_GT(rig.metrics.drafted_tokens, 0u);
}

// What is admitted covers what a session holds, the means to undo a guess included.
TEST(Speculation, SequenceBytesCoverTheUndo) {
  Forward forward(TheModel(), 1);
  SessionState session(TheModel().config, *TheModel().layout);
  const std::vector<int32_t> tokens = RandomTokens(256, 3);
  while (session.position() + 2 <= 256) {
    StepItem item;
    item.session = &session;
    const bool guessed = session.position() % 128 != 127;
    item.tokens =
        std::span(tokens).subspan(static_cast<size_t>(session.position()), guessed ? 2 : 1);
    item.guessed = guessed;
    ASSERT_TRUE(forward.Run(std::span(&item, 1)).ok());
    EXPECT_LE(HeldBytes(session), static_cast<size_t>(SequenceBytes(
                                      TheModel().config, *TheModel().layout, session.position())));
  }
}

}  // namespace
}  // namespace cairn::engine
