#include "engine/sample/sampling_params.h"

namespace cairn::engine {
namespace {

absl::Status CheckRange(const char* field, double value, double low, double high) {
  // Written so that a NaN is refused, too.
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, ": ", value, " is not between ", low, " and ", high));
}

}  // namespace

absl::Status CheckSampling(const SamplingParams& p, int64_t vocab) {
  CAIRN_RETURN_IF_ERROR(CheckRange("temperature", p.temperature, 0, 2));
  CAIRN_RETURN_IF_ERROR(CheckRange("top_p", p.top_p, 0, 1));
  if (p.top_p == 0) return absl::InvalidArgumentError("top_p: must be over 0");
  if (p.top_k < 0) return absl::InvalidArgumentError("top_k: must not be negative");
  CAIRN_RETURN_IF_ERROR(CheckRange("min_p", p.min_p, 0, 1));
  CAIRN_RETURN_IF_ERROR(CheckRange("presence_penalty", p.presence_penalty, -2, 2));
  CAIRN_RETURN_IF_ERROR(CheckRange("frequency_penalty", p.frequency_penalty, -2, 2));
  CAIRN_RETURN_IF_ERROR(CheckRange("repetition_penalty", p.repetition_penalty, 0.01, 100));
  if (p.logit_bias.size() > kLogitBiasMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("logit_bias: ", p.logit_bias.size(), " tokens; at most ", kLogitBiasMax));
  }
  for (const auto& [token, bias] : p.logit_bias) {
    if (token < 0 || token >= vocab) {
      return absl::InvalidArgumentError(
          absl::StrCat("logit_bias: token ", token, " is outside of the vocabulary of ", vocab));
    }
    CAIRN_RETURN_IF_ERROR(CheckRange("logit_bias", bias, -100, 100));
  }
  if (p.top_logprobs < kNoLogprobs || p.top_logprobs > kTopLogprobsMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("top_logprobs: ", p.top_logprobs, " is not between 0 and ", kTopLogprobsMax));
  }
  return absl::OkStatus();
}

}  // namespace cairn::engine
