// The scheduler over the engine on the GPU, with and without a cache.
//
// Goal: what a request is answered has the same bits alone, in company, whatever slot it gets and
// whoever had that before, and resumed from the cache. Method: answers and the logits they were
// chosen from, of a made model of every kind of layer. Skips without a GPU.
#include <algorithm>
#include <map>
#include <thread>

#include "engine/cairn_engine/cuda_batch_runner.h"
#include "engine/cairn_engine/embedded_cache.h"
#include "engine/cuda/cuda_test_models.h"
#include "engine/serve/scheduler.h"
#include "engine/serve/task_pool.h"
#include "engine/text/byte_tokenizer.h"

namespace cairn::engine {
namespace {

constexpr int64_t kContext = 1024;

struct Answer {
  std::vector<int32_t> tokens;
  std::vector<float> logits;  // that they were chosen from, in order
  int64_t cached_tokens = 0;
  std::optional<FinishReason> finish;
  absl::Status status;
};

class CudaServeTest : public CudaEngineTest {
 protected:
  void SetUp() override {
    CudaEngineTest::SetUp();
    if (IsSkipped()) return;
    runner_ = MakeRunner(8);
  }

  static std::unique_ptr<CudaBatchRunner> MakeRunner(int64_t sequences) {
    const auto lasting = [](const CudaModel*) {};  // to the process's end
    auto runner = MakeCudaBatchRunner(
        std::shared_ptr<const CudaModel>(AllKinds().gpu.get(), lasting),
        [] { return AllKinds().weights.Identity(2); },
        {.sequences_max = sequences, .tokens_max = kContext, .step_tokens = kStepTokens});
    EXPECT_TRUE(runner.ok()) << runner.status();
    return *std::move(runner);
  }

  // Of different lengths, around blocks' ends too, longest first; told apart by their seeds.
  static std::vector<GenerationRequest> Requests() {
    std::vector<GenerationRequest> requests;
    for (const int64_t length : {700, 513, 400, 257, 256, 129, 40, 1}) {
      const uint64_t seed = requests.size();
      GenerationRequest request;
      request.prompt = CudaTestTokens(length, static_cast<uint32_t>(seed) + 31);
      request.max_tokens = 5 + 3 * static_cast<int64_t>(seed);
      request.sampling.seed = seed;
      request.sampling.temperature = seed % 3 == 0 ? 0 : 1;
      requests.push_back(std::move(request));
    }
    return requests;
  }

  // All are submitted, then answered. Tasks are done on so many threads, or the scheduler's own.
  std::vector<Answer> Serve(CudaBatchRunner& runner, const std::vector<GenerationRequest>& requests,
                            int64_t sequences, CacheSlots* slots = nullptr, int threads = 0) {
    auto tasks = std::make_unique<TaskPool>(threads);
    const auto spawn = [&](std::function<void()> task) {
      threads == 0 ? task() : tasks->Add(std::move(task));
    };
    Metrics metrics;
    const ByteTokenizer tokenizer(kTestVocab);
    Scheduler scheduler(runner, tokenizer, slots, spawn, RealClock(), metrics,
                        {.step_tokens = kStepTokens,
                         .sequences_max = sequences,
                         .kv_bytes_max = runner.kv_bytes()});
    std::map<uint64_t, std::vector<float>> logits;
    scheduler.set_logits_probe(
        [&](const GenerationRequest& request, int64_t, std::span<const float> of_token) {
          std::vector<float>& all = logits[request.sampling.seed];
          all.insert(all.end(), of_token.begin(), of_token.end());
          EXPECT_LE(metrics.requests_running, sequences);
          EXPECT_EQ(metrics.kv_bytes_used, metrics.requests_running * runner.SequenceBytes(1));
        });
    std::vector<std::shared_ptr<Generation>> outs;
    for (const GenerationRequest& request : requests) {
      auto out = scheduler.Submit(request);
      EXPECT_TRUE(out.ok()) << out.status();
      outs.push_back(*out);
    }
    std::thread steps([&] { scheduler.Run(); });
    scheduler.Drain(absl::Seconds(120));
    scheduler.Stop();
    steps.join();
    tasks.reset();  // before the scheduler, which its last task may still be leaving
    EXPECT_EQ(metrics.requests_running, 0);
    EXPECT_EQ(metrics.kv_bytes_used, 0);
    EXPECT_EQ(metrics.cache_failures, 0u);
    steps_ = metrics.steps;
    std::vector<Answer> answers;
    for (size_t i = 0; i < requests.size(); ++i) {
      Answer answer;
      if (const std::optional<Output> out = outs[i]->Take()) {
        for (const SampledToken& token : out->tokens) answer.tokens.push_back(token.token);
        answer.cached_tokens = out->cached_tokens;
        answer.finish = out->finish;
        answer.status = out->status;
      }
      answer.logits = std::move(logits[requests[i].sampling.seed]);
      answers.push_back(std::move(answer));
    }
    return answers;
  }
  std::vector<Answer> Alone(const std::vector<GenerationRequest>& requests) {
    std::vector<Answer> answers;
    for (const GenerationRequest& request : requests) {
      answers.push_back(Serve(*runner_, {request}, 1)[0]);
    }
    return answers;
  }
  static void ExpectSame(const std::vector<Answer>& got, const std::vector<Answer>& want) {
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < got.size(); ++i) {
      EXPECT_EQ(got[i].finish, FinishReason::kLength) << i << ": " << got[i].status;
      EXPECT_EQ(got[i].tokens, want[i].tokens) << i;
      EXPECT_EQ(got[i].logits, want[i].logits) << i;
    }
  }

  // With room for everything, and a checkpoint at every block's end.
  static std::unique_ptr<EmbeddedCache> MakeCache() {
    auto cache = EmbeddedCache::Create(
        {.bytes = 256 << 20, .policy = *cache::CheckpointPolicy::Parse("full"), .eviction = ""});
    EXPECT_TRUE(cache.ok()) << cache.status();
    return *std::move(cache);
  }
  static CacheSlots::Connect To(EmbeddedCache& cache, const CachedModel& model) {
    return [&cache, descriptor = model.Descriptor()] { return cache.Connect({descriptor, ""}); };
  }

  static constexpr int64_t kStepTokens = 200;
  std::unique_ptr<CudaBatchRunner> runner_;
  uint64_t steps_ = 0;  // of the last Serve
};

TEST_F(CudaServeTest, AloneAndInCompanyTheSameBits) {
  const std::vector<GenerationRequest> requests = Requests();
  const std::vector<Answer> alone = Alone(requests);
  for (size_t i = 0; i < requests.size(); ++i) {
    ASSERT_EQ(std::ssize(alone[i].tokens), requests[i].max_tokens);
    ASSERT_EQ(alone[i].logits.size(), alone[i].tokens.size() * kTestVocab);
  }
  ExpectSame(Serve(*runner_, requests, 8), alone);
  // Slots are given in another order now.
  std::vector<GenerationRequest> backwards(requests.rbegin(), requests.rend());
  std::vector<Answer> answers = Serve(*runner_, backwards, 8);
  std::ranges::reverse(answers);
  ExpectSame(answers, alone);
}

TEST_F(CudaServeTest, MoreRequestsThanSlotsWaitAndAreAllServed) {
  const std::vector<GenerationRequest> requests = Requests();
  const std::vector<Answer> alone = Alone(requests);
  for (const int64_t sequences : {2, 3}) {
    const std::unique_ptr<CudaBatchRunner> few = MakeRunner(sequences);
    ExpectSame(Serve(*few, requests, sequences), alone);
    EXPECT_GT(steps_, 26u) << "more than the longest answer alone";
  }
}

TEST_F(CudaServeTest, ResumedFromTheCacheTheSameBits) {
  const std::vector<GenerationRequest> requests = Requests();
  const std::vector<Answer> alone = Alone(requests);
  const absl::Status prepared = runner_->PrepareForCache();
  ASSERT_TRUE(prepared.ok()) << prepared;
  const CachedModel model = runner_->cached_model();
  const std::unique_ptr<EmbeddedCache> cache = MakeCache();
  for (const bool found : {false, true}) {
    CacheSlots slots(To(*cache, model), model, RealClock(), {.step_tokens = kStepTokens});
    const std::vector<Answer> answers = Serve(*runner_, requests, 8, &slots);
    ExpectSame(answers, alone);
    // All ask before any has learned what this model's prefill costs, and so all load.
    for (size_t i = 0; i < answers.size(); ++i) {
      const int64_t whole = (std::ssize(requests[i].prompt) - 1) / 128 * 128;
      EXPECT_EQ(answers[i].cached_tokens, found ? whole : 0) << i;
    }
    slots.Flush(absl::Seconds(20));
    if (!found) {
      EXPECT_GT(slots.put_stats().put_entries, 0u);
      EXPECT_EQ(slots.put_stats().dropped_entries, 0u);
    }
  }
}

// Restores on other threads while steps of other slots run.
TEST_F(CudaServeTest, RestoresBesideStepsTheSameBits) {
  const std::vector<GenerationRequest> requests = Requests();
  const std::vector<Answer> alone = Alone(requests);
  const std::unique_ptr<CudaBatchRunner> few = MakeRunner(3);
  ASSERT_TRUE(few->PrepareForCache().ok());
  const CachedModel model = few->cached_model();
  const std::unique_ptr<EmbeddedCache> cache = MakeCache();
  for (int round = 0; round < 3; ++round) {
    CacheSlots slots(To(*cache, model), model, RealClock(), {.step_tokens = kStepTokens});
    const std::vector<Answer> answers = Serve(*few, requests, 3, &slots, /*threads=*/3);
    ExpectSame(answers, alone);
    int64_t cached = 0;
    for (const Answer& answer : answers) cached += answer.cached_tokens;
    EXPECT_EQ(cached > 0, round > 0);
    slots.Flush(absl::Seconds(20));
  }
}

TEST_F(CudaServeTest, WhatIsLongerThanTheContextIsRefused) {
  Metrics metrics;
  const ByteTokenizer tokenizer(kTestVocab);
  Scheduler scheduler(
      *runner_, tokenizer, nullptr, nullptr, RealClock(), metrics,
      {.step_tokens = kStepTokens, .sequences_max = 8, .kv_bytes_max = runner_->kv_bytes()});
  const auto submit = [&](int64_t prompt, int64_t max_tokens) {
    GenerationRequest request;
    request.prompt = CudaTestTokens(prompt, 1);
    request.max_tokens = max_tokens;
    return scheduler.Submit(std::move(request)).status();
  };
  for (const absl::Status& refused : {submit(1000, 25), submit(2000, 1), submit(1, INT64_MAX)}) {
    EXPECT_TRUE(absl::IsOutOfRange(refused)) << refused;
    EXPECT_NE(refused.message().find("the maximum is 1024 together"), std::string::npos) << refused;
  }
  EXPECT_FALSE(scheduler.Step()) << "nothing was taken";
  EXPECT_TRUE(submit(1000, 24).ok());
  while (scheduler.Step()) {
  }
  EXPECT_EQ(metrics.requests_at_length, 1u);
}

TEST_F(CudaServeTest, GuessesAreRefused) {
  EXPECT_FALSE(runner_->drafts());
  const BatchSession session = runner_->NewSession();
  const std::vector<int32_t> tokens = {1, 2};
  BatchItem item;
  item.session = session.get();
  item.tokens = tokens;
  item.guessed = true;
  EXPECT_TRUE(absl::IsUnimplemented(runner_->Run({&item, 1})));
  EXPECT_EQ(session->position(), 0);
}

TEST_F(CudaServeTest, SlotsThatDoNotFitAreNamed) {
  auto runner = MakeCudaBatchRunner(
      std::shared_ptr<const CudaModel>(AllKinds().gpu.get(), [](const CudaModel*) {}),
      [] { return Digest{}; },
      {.sequences_max = 1 << 15, .tokens_max = 4096, .step_tokens = 1 << 15});
  ASSERT_TRUE(absl::IsResourceExhausted(runner.status())) << runner.status();
  EXPECT_NE(runner.status().message().find("32768 sequences of up to 4096 tokens"),
            std::string::npos)
      << runner.status();
}

}  // namespace
}  // namespace cairn::engine
