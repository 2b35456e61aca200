// sampler.h: logits to the next token, as OpenAI's and vLLM's APIs define the fields.
//
// The order of operations, which is vLLM's:
//   1. logprobs, where asked for, of the model's own logits
//   2. logit_bias is added
//   3. repetition_penalty, for tokens of the prompt or the answer: a positive logit is divided by
//      it, another multiplied
//   4. frequency_penalty times a token's count in the answer, and presence_penalty once, are
//      subtracted
//   5. temperature 0: the highest logit, and that is all
//   6. the logits are divided by the temperature
//   7. min_p: tokens under min_p times the likeliest's probability go
//   8. top_k: the k likeliest stay
//   9. top_p: of these the likeliest stay, until together they have top_p of the probability
//  10. one is drawn
// Of equal logits the lower id comes first, everywhere.
//
// What is drawn depends on the logits, the parameters, the sequence's own tokens, and (seed,
// position): not on other sequences, nor on how often anybody has drawn.
//
// Threads: one at a time a Sampler. Errors: none; CheckSampling has been asked.
#ifndef CAIRN_ENGINE_SAMPLE_SAMPLER_H_
#define CAIRN_ENGINE_SAMPLE_SAMPLER_H_

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "engine/sample/sampling_params.h"

namespace cairn::engine {

struct TokenLogprob {
  int32_t token = 0;
  double logprob = 0;
};

struct SampledToken {
  int32_t token = 0;
  double logprob = 0;             // by the model's own logits; 0 unless asked for
  std::vector<TokenLogprob> top;  // the likeliest, best first
};

class Sampler {
 public:
  Sampler(SamplingParams params, std::span<const int32_t> prompt);

  // The token at `position` of the sequence; it counts for the penalties from then on. `logits`
  // [vocab].
  SampledToken Next(std::span<const float> logits, int64_t position);
  // What Next would take of these; it counts for nothing.
  int32_t Guess(std::span<const float> logits, int64_t position);

 private:
  void AddPenalties();
  int32_t Draw(double uniform);

  SamplingParams params_;
  absl::flat_hash_set<int32_t> seen_;                // prompt and answer, for repetition_penalty
  absl::flat_hash_map<int32_t, int64_t> in_answer_;  // token -> count
  // Kept between calls for their memory.
  std::vector<float> scores_;
  std::vector<int32_t> heap_;
  std::vector<std::pair<int32_t, double>> kept_;  // (token, weight), best first
};

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_SAMPLE_SAMPLER_H_
