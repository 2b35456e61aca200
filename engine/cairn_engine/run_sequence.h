// run_sequence.h: one sequence from its prompt to its last token: resume from the cache, prefill
// the rest in chunks, decode.
//
// Threads: one caller a Forward. Errors: those of Forward::Run.
#ifndef CAIRN_ENGINE_CAIRN_ENGINE_RUN_SEQUENCE_H_
#define CAIRN_ENGINE_CAIRN_ENGINE_RUN_SEQUENCE_H_

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "engine/forward/forward.h"
#include "engine/resume/prefix_cache.h"
#include "store/base/clock.h"

namespace cairn::engine {

struct SequenceOptions {
  int64_t chunk = 256;  // prefill tokens a step
  int64_t new_tokens = 16;
  int32_t stop_token = -1;                                         // ends the output; -1: none
  std::function<void(int64_t done, int64_t total)> progress = {};  // after each prefill step
};

struct SequenceResult {
  std::vector<int32_t> output;
  std::vector<float>
      logits;  // [output.size(), vocab]: those that each output token was chosen from
  ResumeReport resume;
  int64_t recomputed_tokens = 0;   // behind what was restored or replayed
  double first_token_seconds = 0;  // from the call to the first token
  double prefill_seconds = 0;
  double decode_seconds = 0;  // of the tokens after the first
};

// OUT_OF_RANGE: prompt and new tokens together are over the model's maximum. INVALID_ARGUMENT:
// empty, or a token outside of the vocabulary.
absl::Status CheckPrompt(const ModelConfig& config, std::span<const int32_t> prompt,
                         int64_t new_tokens);

// Greedy: the highest logit, the lower id on a tie. `cache` may be null.
absl::StatusOr<SequenceResult> RunSequence(Forward& forward, PrefixCache* cache, Clock& clock,
                                           std::span<const int32_t> prompt,
                                           const SequenceOptions& options);

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_CAIRN_ENGINE_RUN_SEQUENCE_H_
