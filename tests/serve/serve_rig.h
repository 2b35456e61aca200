// serve_rig.h: the scheduler and the cache together, in one process: tasks are kept by the test and
// run where it says, so that every order is a chosen one.
//
// Threads: the test's. Errors: as expectations.
#ifndef CAIRN_TESTS_SERVE_SERVE_RIG_H_
#define CAIRN_TESTS_SERVE_SERVE_RIG_H_

#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/serve/scheduler.h"
#include "engine/text/byte_tokenizer.h"
#include "tests/resume/resume_rig.h"

namespace cairn::engine {

struct Answer {
  std::vector<int32_t> tokens;
  std::vector<float> logits;
  int64_t cached_tokens = 0;
  std::optional<FinishReason> finish;
};

class Server {
 public:
  explicit Server(CacheSlots::Connect connect, Clock& clock_used = RealClock(),
                  uint64_t overlap_bytes_min = 1 << 20)
      : clock_(clock_used),
        slots(std::move(connect), SmallModel().cached(), clock_used,
              {.wait = absl::Seconds(20),
               .overlap_bytes_min = overlap_bytes_min,
               .say = [this](const std::string& line) { said.push_back(line); }}),
        scheduler(*runner_, tokenizer_, &slots,
                  [this](std::function<void()> task) { tasks.push_back(std::move(task)); },
                  clock_used, metrics, {.step_tokens = 100, .sequences_max = 4}) {
    scheduler.set_logits_probe(
        [this](const GenerationRequest& request, int64_t, std::span<const float> logits) {
          std::vector<float>& all = logits_[request.sampling.seed];
          all.insert(all.end(), logits.begin(), logits.end());
        });
  }
  explicit Server(const Daemon& daemon) : Server([&daemon] { return daemon.Connect(); }) {}
  ~Server() {
    while (scheduler.Step() || RunTask()) {
    }
  }

  std::shared_ptr<Generation> Submit(const std::vector<int32_t>& prompt, uint64_t seed = 1) {
    auto out = scheduler.Submit({.prompt = prompt, .max_tokens = 4, .sampling = {.seed = seed}});
    EXPECT_TRUE(out.ok()) << out.status();
    return *out;
  }
  bool RunTask() {
    if (tasks.empty()) return false;
    const std::function<void()> task = std::move(tasks.front());
    tasks.pop_front();
    task();
    return true;
  }
  Answer Finish(Generation& out, uint64_t seed = 1) {
    Answer answer;
    while (!answer.finish.has_value()) {
      if (const std::optional<Output> more = out.Take()) {
        for (const SampledToken& token : more->tokens) answer.tokens.push_back(token.token);
        answer.cached_tokens = more->cached_tokens;
        answer.finish = more->finish;
      } else if (!scheduler.Step() && !RunTask()) {
        ADD_FAILURE() << "it never ends";
        break;
      }
    }
    answer.logits = logits_[seed];
    return answer;
  }
  Answer Run(const std::vector<int32_t>& prompt) {
    logits_.clear();
    const std::shared_ptr<Generation> out = Submit(prompt);
    Answer answer = Finish(*out);
    while (RunTask()) {
    }
    slots.Flush(absl::Seconds(20));
    return answer;
  }

 private:
  Clock& clock_;
  ByteTokenizer tokenizer_{256};
  Forward forward_{SmallModel(), 1};
  const std::unique_ptr<BatchRunner> runner_ = CpuBatchRunner(forward_);
  std::map<uint64_t, std::vector<float>> logits_;

 public:
  std::vector<std::string> said;
  std::deque<std::function<void()>> tasks;
  Metrics metrics;
  CacheSlots slots;
  Scheduler scheduler;
};

inline CacheSlots::Connect Nobody() {
  return [] { return absl::UnavailableError("nobody listens"); };
}

inline Answer Cold(const std::vector<int32_t>& prompt) { return Server(Nobody()).Run(prompt); }

inline void ExpectSame(const Answer& a, const Answer& b) {
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.logits, b.logits);
  EXPECT_EQ(a.finish, b.finish);
}

}  // namespace cairn::engine

#endif  // CAIRN_TESTS_SERVE_SERVE_RIG_H_
