// The scheduler without HTTP and without a cache, step by step on the test's thread, by a clock
// turned by hand. (With a cache: tests/serve.)
//
// Goal: what a request is answered depends on nothing but the request, and what it has to wait for
// is bounded. Method: answers and the logits they were chosen from are compared bit for bit with
// those of the same request alone.
#include <thread>

#include "engine/serve/scheduler_rig.h"
#include "store/base/random.h"

namespace cairn::engine {
namespace {

TEST(Scheduler, GreedyIsWhatTheModelSays) {
  GenerationRequest request = Request(150, 8, 1);
  request.sampling.temperature = 0;
  const Answer answer = Alone(request);
  EXPECT_EQ(answer.output.finish, FinishReason::kLength);
  EXPECT_EQ(answer.output.answer_tokens, 8);
  EXPECT_EQ(answer.output.prompt_tokens, 150);
  Forward forward(TheModel(), 1);
  SessionState session(TheModel().config, *TheModel().layout);
  std::vector<int32_t> tokens = request.prompt;
  for (const int32_t token : Ids(answer)) {
    Outcome outcome;
    Continue(forward, session, std::span(tokens).subspan(static_cast<size_t>(session.position())),
             64, outcome, INT64_MAX);
    const std::span<const float> last = std::span(outcome.logits).last(64);
    EXPECT_EQ(token, std::max_element(last.begin(), last.end()) - last.begin());
    tokens.push_back(token);
  }
}

// The same 32 prompts alone, together, and in random company.
TEST(Scheduler, AnswersDoNotDependOnCompany) {
  SeededRandom random(7);
  std::vector<GenerationRequest> requests;
  for (uint64_t i = 0; i < 32; ++i) {
    GenerationRequest request =
        Request(1 + random.Next() % 280, 1 + static_cast<int64_t>(random.Next() % 12), i);
    request.sampling.temperature = i % 4 == 0 ? 0 : 1;
    if (i % 3 == 0) request.sampling.top_p = 0.9;
    if (i % 5 == 0) request.sampling.repetition_penalty = 1.3;
    requests.push_back(request);
  }
  std::vector<Answer> alone;
  for (const GenerationRequest& request : requests) alone.push_back(Alone(request));

  Rig together({.step_tokens = 256, .sequences_max = 32});
  std::vector<std::shared_ptr<Generation>> all;
  for (const GenerationRequest& request : requests) all.push_back(together.Submit(request));
  for (size_t i = 0; i < 32; ++i) ExpectSame(together.Finish(*all[i], i), alone[i]);

  for (int round = 0; round < 2; ++round) {
    Rig rig({.step_tokens = 16 + static_cast<int64_t>(random.Next() % 64), .sequences_max = 7});
    std::vector<std::shared_ptr<Generation>> some(32);
    for (size_t n = 0; n < 32; ++n) {
      const size_t i = (n * 11 + static_cast<size_t>(round) * 5) % 32;
      some[i] = rig.Submit(requests[i]);
      for (uint64_t steps = random.Next() % 3; steps > 0; --steps) rig.scheduler.Step();
    }
    for (size_t i = 0; i < 32; ++i) ExpectSame(rig.Finish(*some[i], i), alone[i]);
  }
}

TEST(Scheduler, DecodingGoesOnBesideAPrefillAndStepsKeepTheirBudget) {
  Rig rig({.step_tokens = 32, .sequences_max = 4});
  const auto decoding = rig.Submit(Request(4, 60, 1));
  rig.scheduler.Step();
  ASSERT_EQ(decoding->Take()->answer_tokens, 1);
  rig.Submit(Request(900, 1, 2));
  for (int64_t step = 2; step <= 31; ++step) {
    const uint64_t before = rig.metrics.computed_tokens;
    ASSERT_TRUE(rig.scheduler.Step());
    EXPECT_LE(rig.metrics.computed_tokens - before, 32u);
    const std::optional<Output> more = decoding->Take();
    ASSERT_TRUE(more.has_value()) << "no token in step " << step;
    EXPECT_EQ(more->answer_tokens, step);
  }
  EXPECT_EQ(rig.metrics.requests_at_length, 1u) << "the prefill got the rest of each step";
}

TEST(Scheduler, AShortPromptDoesNotWaitForALongOne) {
  Rig rig({.step_tokens = 32, .sequences_max = 4});
  const auto long_one = rig.Submit(Request(900, 1, 1));
  rig.scheduler.Step();
  const auto short_one = rig.Submit(Request(40, 1, 2));
  for (int step = 0; step < 3; ++step) rig.scheduler.Step();
  EXPECT_TRUE(short_one->Take().has_value());
  EXPECT_FALSE(long_one->Take().has_value());
}

TEST(Scheduler, MemoryIsAdmittedBeforeItIsUsedAndInOrder) {
  const auto bytes = [](int64_t tokens) {
    return SequenceBytes(TheModel().config, *TheModel().layout, tokens);
  };
  Rig rig({.sequences_max = 8, .kv_bytes_max = bytes(600) + bytes(100)});
  const auto large = rig.Submit(Request(300, 300, 1));
  const auto large_too = rig.Submit(Request(300, 300, 2));
  const auto small = rig.Submit(Request(50, 50, 3));
  rig.scheduler.Step();
  EXPECT_EQ(rig.metrics.requests_running, 1);
  EXPECT_EQ(rig.metrics.requests_waiting, 2) << "the small one does not overtake";
  EXPECT_EQ(rig.metrics.kv_bytes_used, bytes(600));
  large->Cancel();
  while (!small->Take().has_value()) {
    ASSERT_TRUE(rig.scheduler.Step());
    EXPECT_LE(rig.metrics.kv_bytes_used, bytes(600) + bytes(100));
  }
  EXPECT_EQ(rig.metrics.requests_running, 2);
  large_too->Cancel();
  small->Cancel();
  EXPECT_FALSE(rig.scheduler.Step());
  EXPECT_EQ(rig.metrics.kv_bytes_used, 0);
}

// What is admitted covers what a session really holds.
TEST(Scheduler, SequenceBytesCoverTheSession) {
  Forward forward(TheModel(), 1);
  for (const int64_t tokens : {1, 127, 128, 131, 255, 400}) {
    SessionState session(TheModel().config, *TheModel().layout);
    Outcome ignored;
    const std::vector<int32_t> prompt = RandomTokens(tokens, 3);
    Continue(forward, session, prompt, 64, ignored, INT64_MAX);
    const size_t held = HeldBytes(session);
    EXPECT_LE(held,
              static_cast<size_t>(SequenceBytes(TheModel().config, *TheModel().layout, tokens)));
  }
}

TEST(Scheduler, AFullQueueRefusesAndSaysWhenToComeBack) {
  Rig rig({.sequences_max = 2, .queue_max = 3});
  std::vector<std::shared_ptr<Generation>> taken;
  for (uint64_t i = 0; i < 5; ++i) taken.push_back(rig.Submit(Request(10, 2, i)));
  EXPECT_TRUE(absl::IsResourceExhausted(rig.scheduler.Submit(Request(10, 2, 9)).status()));
  EXPECT_EQ(rig.metrics.requests_refused, 1u);
  EXPECT_EQ(rig.scheduler.RetryAfterSeconds(), 1) << "nothing measured yet";
  for (size_t i = 0; i < 5; ++i) {
    rig.clock.Advance(absl::Seconds(4));
    rig.Finish(*taken[i], i);
  }
  // They took 4 s or more, in 2 places; nobody waits.
  EXPECT_GE(rig.scheduler.RetryAfterSeconds(), 2);
  EXPECT_LE(rig.scheduler.RetryAfterSeconds(), 10);
  rig.Submit(Request(10, 2, 9));
}

TEST(Scheduler, CancelledRequestsLeaveAndTheOthersDoNotNotice) {
  Rig rig({.step_tokens = 32, .sequences_max = 2});
  const auto first = rig.Submit(Request(200, 50, 1));
  const auto second = rig.Submit(Request(30, 10, 2));
  const auto third = rig.Submit(Request(30, 10, 3));
  const auto never = rig.Submit(Request(30, 10, 4));
  rig.scheduler.Step();
  first->Cancel();
  never->Cancel();
  ExpectSame(rig.Finish(*second, 2), Alone(Request(30, 10, 2)));
  ExpectSame(rig.Finish(*third, 3), Alone(Request(30, 10, 3)));
  EXPECT_EQ(rig.metrics.requests_cancelled, 2u);
  EXPECT_FALSE(rig.scheduler.Step());
  EXPECT_EQ(rig.metrics.requests_running, 0);
  EXPECT_EQ(rig.metrics.requests_waiting, 0);
}

TEST(Scheduler, StopsAtTokensAndTexts) {
  GenerationRequest request = Request(60, 40, 5);
  const Answer whole = Alone(request);
  const std::vector<int32_t> ids = Ids(whole);
  ASSERT_EQ(ids.size(), 40u);

  request.stop_tokens = {ids[10]};
  const size_t at = static_cast<size_t>(std::find(ids.begin(), ids.end(), ids[10]) - ids.begin());
  const Answer by_token = Alone(request);
  EXPECT_EQ(by_token.output.finish, FinishReason::kStop);
  EXPECT_EQ(Ids(by_token),
            std::vector<int32_t>(ids.begin(), ids.begin() + static_cast<int64_t>(at)));
  EXPECT_EQ(by_token.output.answer_tokens, static_cast<int64_t>(at) + 1) << "it was generated";

  // A text that two tokens make together, and one that never comes but holds text back.
  request.stop_tokens.clear();
  request.stop = {whole.output.text.substr(10, 2), whole.output.text.substr(37, 3) + "never"};
  const Answer by_text = Alone(request);
  EXPECT_EQ(by_text.output.finish, FinishReason::kStop);
  EXPECT_EQ(by_text.output.text,
            whole.output.text.substr(0, whole.output.text.find(request.stop[0])));
  request.stop.erase(request.stop.begin());
  const Answer held = Alone(request);
  EXPECT_EQ(held.output.finish, FinishReason::kLength);
  EXPECT_EQ(held.output.text, whole.output.text);
}

TEST(Scheduler, RefusesByName) {
  Rig rig({.kv_bytes_max = SequenceBytes(TheModel().config, *TheModel().layout, 500)});
  const auto refused = [&](GenerationRequest request) {
    return rig.scheduler.Submit(std::move(request)).status();
  };
  const auto named = [](const absl::Status& status, std::string_view field) {
    return std::string_view(status.message().data(), status.message().size()).starts_with(field);
  };
  EXPECT_TRUE(named(refused({}), "prompt:"));
  EXPECT_TRUE(named(refused({.prompt = {1, 64}}), "token 1:"));
  EXPECT_TRUE(named(refused({.prompt = {1}, .max_tokens = 0}), "max_tokens:"));
  EXPECT_TRUE(named(refused({.prompt = {1}, .sampling = {.top_p = 7}}), "top_p:"));
  const absl::Status longer = refused({.prompt = {1}, .max_tokens = 1024});
  EXPECT_TRUE(absl::IsOutOfRange(longer) && named(longer, "max_tokens:")) << longer;
  EXPECT_TRUE(absl::IsOutOfRange(refused({.prompt = {1}, .max_tokens = INT64_MAX})));
  const absl::Status larger = refused({.prompt = {1}, .max_tokens = 600});
  EXPECT_TRUE(absl::IsOutOfRange(larger) && named(larger, "max_tokens:")) << larger;
  EXPECT_FALSE(rig.scheduler.Step());
}

TEST(Scheduler, TimesAreOfTheClock) {
  Rig rig;
  const auto out = rig.Submit(Request(10, 2, 1));
  rig.clock.Advance(absl::Seconds(3));
  rig.scheduler.Step();
  rig.clock.Advance(absl::Milliseconds(500));
  rig.scheduler.Step();
  ASSERT_EQ(out->Take()->finish, FinishReason::kLength);
  std::string text;
  rig.metrics.first_token_seconds.Append("ttft", "", text);
  rig.metrics.between_tokens_seconds.Append("itl", "", text);
  EXPECT_NE(text.find("ttft_sum 3\n"), std::string::npos) << text;
  EXPECT_NE(text.find("ttft_bucket{le=\"2.048\"} 0\n"), std::string::npos) << text;
  EXPECT_NE(text.find("ttft_bucket{le=\"4.096\"} 1\n"), std::string::npos) << text;
  EXPECT_NE(text.find("itl_sum 0.5\n"), std::string::npos) << text;
}

TEST(Scheduler, DrainFinishesAndStopEndsWhatIsLeft) {
  Rig rig({.sequences_max = 1});
  const auto running = rig.Submit(Request(5, 500, 1));
  const auto waiting = rig.Submit(Request(5, 500, 2));
  std::thread loop([&] { rig.scheduler.Run(); });
  rig.scheduler.Drain(absl::ZeroDuration());
  EXPECT_TRUE(absl::IsUnavailable(rig.scheduler.Submit(Request(5, 1, 3)).status()));
  rig.scheduler.Stop();
  loop.join();
  const std::optional<Output> end = waiting->Take();
  ASSERT_TRUE(end.has_value());
  EXPECT_EQ(end->finish, FinishReason::kFailed);
  EXPECT_TRUE(absl::IsUnavailable(end->status));
  EXPECT_TRUE(running->Take()->finish.has_value());

  Rig other;
  const auto finishes = other.Submit(Request(5, 20, 1));
  std::thread other_loop([&] { other.scheduler.Run(); });
  other.scheduler.Drain(absl::Seconds(60));
  EXPECT_EQ(finishes->Take()->finish, FinishReason::kLength);
  other.scheduler.Stop();
  other_loop.join();
}

}  // namespace
}  // namespace cairn::engine
