#include "engine/cairn_engine/run_sequence.h"

#include <algorithm>
#include <memory>

#include "absl/strings/str_cat.h"
#include "engine/cairn_engine/failure.h"

namespace cairn::engine {
namespace {

double Seconds(const Clock& clock, int64_t start) {
  return static_cast<double>(clock.NowNanos() - start) * 1e-9;
}

// Prefills from the session's position to the prompt's end; the last step's logits are in `item`.
absl::Status Prefill(Forward& forward, PrefixCache* cache, Clock& clock,
                     std::span<const int32_t> prompt, const SequenceOptions& options,
                     SessionState& session, StepItem& item) {
  const int64_t end = static_cast<int64_t>(prompt.size());
  while (session.position() < end) {
    const int64_t from = session.position();
    int64_t stop = std::min(end, from + std::max<int64_t>(options.chunk, 1));
    if (cache != nullptr) stop = std::min(stop, cache->NextStop(from, end, end));
    item.session = &session;
    item.tokens = prompt.subspan(static_cast<size_t>(from), static_cast<size_t>(stop - from));
    item.want = stop == end ? WantLogits::kLast : WantLogits::kNone;
    const int64_t start = clock.NowNanos();
    CAIRN_RETURN_IF_ERROR(forward.Run({&item, 1}));
    if (cache != nullptr) {
      const int64_t layers = forward.model().config.layers;
      cache->ObservePrefill(stop, item.token_layers / layers, Seconds(clock, start));
      cache->Store(session, prompt.first(static_cast<size_t>(stop)), end);
    }
    if (options.progress) options.progress(stop, end);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckPrompt(const ModelConfig& config, std::span<const int32_t> prompt,
                         int64_t new_tokens) {
  if (prompt.empty()) return absl::InvalidArgumentError("the prompt is empty");
  const int64_t total = static_cast<int64_t>(prompt.size()) + new_tokens;
  if (total > config.max_positions) {
    return absl::OutOfRangeError(
        absl::StrCat("the prompt has ", prompt.size(), " tokens and ", new_tokens,
                     " are to be generated; the model's maximum is ", config.max_positions));
  }
  return CheckTokens(config, prompt);
}

absl::StatusOr<SequenceResult> RunSequence(Forward& forward, PrefixCache* cache, Clock& clock,
                                           std::span<const int32_t> prompt,
                                           const SequenceOptions& options) {
  const Model& model = forward.model();
  CAIRN_RETURN_IF_ERROR(CheckPrompt(model.config, prompt, options.new_tokens));
  SequenceResult result;
  const int64_t start = clock.NowNanos();
  auto session = std::make_unique<SessionState>(model.config, *model.layout);
  if (cache != nullptr) result.resume = cache->Resume(prompt, *session);
  result.recomputed_tokens = std::ssize(prompt) - result.resume.prefix_tokens;
  const int64_t prefill_start = clock.NowNanos();
  StepItem item;
  // Computes `tokens` from nothing, when restored rows turn out to have been taken back.
  const auto rebuild = [&](std::span<const int32_t> tokens) {
    ++result.resume.checksum_failures;
    result.resume.prefix_tokens = 0;
    result.recomputed_tokens = static_cast<int64_t>(prompt.size());
    session = std::make_unique<SessionState>(model.config, *model.layout);
    return Prefill(forward, nullptr, clock, tokens, options, *session, item);
  };
  CAIRN_RETURN_IF_ERROR(Prefill(forward, cache, clock, prompt, options, *session, item));
  if (cache != nullptr && !cache->StillIntact()) CAIRN_RETURN_IF_ERROR(rebuild(prompt));
  result.prefill_seconds = Seconds(clock, prefill_start);

  std::vector<int32_t> tokens(prompt.begin(), prompt.end());
  int64_t decode_start = 0;
  for (int64_t i = 0; i < options.new_tokens; ++i) {
    const auto best = std::max_element(item.logits.begin(), item.logits.end());
    const int32_t token = static_cast<int32_t>(best - item.logits.begin());
    result.output.push_back(token);
    result.logits.insert(result.logits.end(), item.logits.begin(), item.logits.end());
    if (i == 0) {
      result.first_token_seconds = Seconds(clock, start);
      decode_start = clock.NowNanos();
    }
    if (token == options.stop_token || i + 1 == options.new_tokens) break;
    if (i == 0 && cache != nullptr && !cache->Settle(*session))
      CAIRN_RETURN_IF_ERROR(rebuild(tokens));
    tokens.push_back(token);
    item.tokens = {&tokens.back(), 1};
    item.session = session.get();
    item.want = WantLogits::kLast;
    CAIRN_RETURN_IF_ERROR(forward.Run({&item, 1}));
    if (cache != nullptr) cache->Store(*session, tokens, static_cast<int64_t>(prompt.size()));
  }
  if (cache != nullptr) cache->Finish();
  if (decode_start != 0) result.decode_seconds = Seconds(clock, decode_start);
  return result;
}

}  // namespace cairn::engine
