// scheduler_rig.h: a scheduler without HTTP and without a cache, step by step on the test's thread,
// by a clock turned by hand; answers with the logits they were chosen from. For tests only.
#ifndef CAIRN_ENGINE_SERVE_SCHEDULER_RIG_H_
#define CAIRN_ENGINE_SERVE_SCHEDULER_RIG_H_

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <memory>
#include <vector>

#include "engine/forward/test_models.h"
#include "engine/serve/scheduler.h"
#include "engine/text/byte_tokenizer.h"

namespace cairn::engine {

inline const Model& TheModel() { return ModelOf(kModes[1]); }

struct Answer {
  Output output;
  std::vector<float> logits;  // that its tokens were chosen from, in order
};

class Rig {
 public:
  explicit Rig(Scheduler::Options options = {})
      : forward_(TheModel(), 1),
        scheduler(
            *runner_, tokenizer_, nullptr, [](std::function<void()> task) { task(); }, clock,
            metrics, options) {
    scheduler.set_logits_probe(
        [this](const GenerationRequest& request, int64_t, std::span<const float> logits) {
          std::vector<float>& all = logits_[request.sampling.seed];
          all.insert(all.end(), logits.begin(), logits.end());
        });
  }

  std::shared_ptr<Generation> Submit(const GenerationRequest& request) {
    auto out = scheduler.Submit(request);
    EXPECT_TRUE(out.ok()) << out.status();
    return out.ok() ? *out : nullptr;
  }
  // The answer when it has come; requests are told apart by their seeds.
  Answer Finish(Generation& generation, uint64_t seed) {
    Answer answer;
    for (;;) {
      if (auto more = generation.Take()) {
        more->text.insert(0, answer.output.text);
        more->tokens.insert(more->tokens.begin(), answer.output.tokens.begin(),
                            answer.output.tokens.end());
        answer.output = std::move(*more);
        if (answer.output.finish.has_value()) break;
      } else if (!scheduler.Step()) {
        ADD_FAILURE() << "it never ends";
        break;
      }
    }
    answer.logits = logits_[seed];
    return answer;
  }

  FakeClock clock;
  Metrics metrics;

 private:
  ByteTokenizer tokenizer_{64};
  Forward forward_;
  const std::unique_ptr<BatchRunner> runner_ = CpuBatchRunner(forward_);
  std::map<uint64_t, std::vector<float>> logits_;

 public:
  Scheduler scheduler;
};

inline GenerationRequest Request(size_t prompt, int64_t max_tokens, uint64_t seed) {
  GenerationRequest request;
  request.prompt = RandomTokens(static_cast<int64_t>(prompt), static_cast<uint32_t>(seed));
  request.max_tokens = max_tokens;
  request.sampling.seed = seed;
  return request;
}

inline Answer Alone(const GenerationRequest& request) {
  Rig rig;
  return rig.Finish(*rig.Submit(request), request.sampling.seed);
}

inline std::vector<int32_t> Ids(const Answer& answer) {
  std::vector<int32_t> ids;
  for (const SampledToken& token : answer.output.tokens) ids.push_back(token.token);
  return ids;
}

inline void ExpectSame(const Answer& a, const Answer& b) {
  EXPECT_EQ(Ids(a), Ids(b));
  EXPECT_EQ(a.output.text, b.output.text);
  EXPECT_EQ(a.output.finish, b.output.finish);
  ASSERT_EQ(a.logits.size(), b.logits.size());
  EXPECT_EQ(std::memcmp(a.logits.data(), b.logits.data(), a.logits.size() * sizeof(float)), 0);
}

// What a session really holds.
inline size_t HeldBytes(SessionState& session) {
  size_t bytes = static_cast<size_t>(session.rows().count()) *
                 static_cast<size_t>(TheModel().layout->rows_entry_bytes());
  const auto add = [&](const CompressorState& state) {
    bytes += (state.overlap.values.size() + state.partial.kv.size() + state.partial.score.size()) *
             sizeof(float);
  };
  bytes += (session.last_hidden().size() + session.undo().last_hidden.size()) * sizeof(float);
  for (size_t i = 0; i < TheModel().layout->layers().size(); ++i) {
    const LayerState& layer = session.layer(static_cast<int64_t>(i));
    bytes += layer.window.bytes().size();
    add(layer.main);
    add(layer.indexer);
    const CompressorUndo& undo = session.undo().layers[i];
    if (undo.main.has_value()) add(*undo.main);
    if (undo.indexer.has_value()) add(*undo.indexer);
  }
  return bytes;
}

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_SERVE_SCHEDULER_RIG_H_
