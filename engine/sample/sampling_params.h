// sampling_params.h: how a request wants its tokens chosen, and which values are taken.
//
// Threads: values. Errors: INVALID_ARGUMENT "field: what", with the API's name of the field.
#ifndef CAIRN_ENGINE_SAMPLE_SAMPLING_PARAMS_H_
#define CAIRN_ENGINE_SAMPLE_SAMPLING_PARAMS_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "store/base/status.h"

namespace cairn::engine {

inline constexpr size_t kLogitBiasMax = 1024;
inline constexpr int kTopLogprobsMax = 20;
inline constexpr int kNoLogprobs = -1;

struct SamplingParams {
  double temperature = 1;         // 0 to 2; 0, and what is nearly 0: the likeliest token
  double top_p = 1;               // over 0, to 1
  int64_t top_k = 0;              // 0: all
  double min_p = 0;               // 0 to 1
  double presence_penalty = 0;    // -2 to 2
  double frequency_penalty = 0;   // -2 to 2
  double repetition_penalty = 1;  // 0.01 to 100
  std::vector<std::pair<int32_t, double>> logit_bias = {};  // token, -100 to 100
  uint64_t seed = 0;
  int top_logprobs = kNoLogprobs;  // how many beside the chosen token's
};

// `vocab`: ids in logit_bias are below it.
absl::Status CheckSampling(const SamplingParams& params, int64_t vocab);

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_SAMPLE_SAMPLING_PARAMS_H_
