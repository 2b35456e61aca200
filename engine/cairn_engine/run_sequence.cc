#include "engine/cairn_engine/run_sequence.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/cairn_engine/failure.h"

namespace cairn::engine {
namespace {

double Seconds(const Clock& clock, int64_t start) {
  return static_cast<double>(clock.NowNanos() - start) * 1e-9;
}

class CpuRunner final : public SequenceRunner {
 public:
  explicit CpuRunner(Forward& forward) : forward_(forward) {}

  const ModelConfig& config() const override { return forward_.model().config; }
  CachedModel cached_model() const override { return forward_.model().cached(); }
  CachedSession& session() override { return *session_; }
  void StartOver() override {
    session_ = std::make_unique<SessionState>(config(), *forward_.model().layout);
    item_.session = session_.get();
  }
  absl::StatusOr<int64_t> Prefill(std::span<const int32_t> tokens, bool last) override {
    item_.tokens = tokens;
    item_.want = last ? WantLogits::kLast : WantLogits::kNone;
    CAIRN_RETURN_IF_ERROR(forward_.Run({&item_, 1}));
    return item_.token_layers / config().layers;
  }
  absl::Status Decode(int32_t token) override { return Prefill({&token, 1}, true).status(); }
  absl::StatusOr<NextToken> Next() override {
    const auto best = std::max_element(item_.logits.begin(), item_.logits.end());
    const auto token = static_cast<int32_t>(best - item_.logits.begin());
    return NextToken{token, std::move(item_.logits)};
  }

 private:
  Forward& forward_;
  std::unique_ptr<SessionState> session_;
  StepItem item_;
};

// Prefills from the session's position to the prompt's end.
absl::Status Prefill(SequenceRunner& runner, PrefixCache* cache, Clock& clock,
                     std::span<const int32_t> prompt, const SequenceOptions& options) {
  const int64_t end = static_cast<int64_t>(prompt.size());
  while (runner.session().position() < end) {
    const int64_t from = runner.session().position();
    int64_t stop = std::min(end, from + std::max<int64_t>(options.chunk, 1));
    if (cache != nullptr) stop = std::min(stop, cache->NextStop(from, end, end));
    const int64_t start = clock.NowNanos();
    CAIRN_ASSIGN_OR_RETURN(
        const int64_t work,
        runner.Prefill(prompt.subspan(static_cast<size_t>(from), static_cast<size_t>(stop - from)),
                       /*last=*/stop == end));
    if (cache != nullptr) {
      cache->ObservePrefill(stop, work, Seconds(clock, start));
      cache->Store(runner.session(), prompt.first(static_cast<size_t>(stop)), end);
    }
    if (options.progress) options.progress(stop, end);
  }
  return absl::OkStatus();
}

}  // namespace

std::unique_ptr<SequenceRunner> CpuSequenceRunner(Forward& forward) {
  return std::make_unique<CpuRunner>(forward);
}

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

absl::StatusOr<SequenceResult> RunSequence(SequenceRunner& runner, PrefixCache* cache, Clock& clock,
                                           std::span<const int32_t> prompt,
                                           const SequenceOptions& options) {
  CAIRN_RETURN_IF_ERROR(CheckPrompt(runner.config(), prompt, options.new_tokens));
  SequenceResult result;
  const int64_t start = clock.NowNanos();
  runner.StartOver();
  if (cache != nullptr) result.resume = cache->Resume(prompt, runner.session());
  result.recomputed_tokens = std::ssize(prompt) - result.resume.prefix_tokens;
  const int64_t prefill_start = clock.NowNanos();
  // Computes the prompt from nothing, when restored rows turn out to have been taken back, or did
  // not arrive.
  const auto rebuild = [&] {
    ++result.resume.checksum_failures;
    result.resume.prefix_tokens = 0;
    result.recomputed_tokens = static_cast<int64_t>(prompt.size());
    runner.StartOver();
    return Prefill(runner, nullptr, clock, prompt, options);
  };
  const absl::Status prefilled = Prefill(runner, cache, clock, prompt, options);
  if (!prefilled.ok() && !runner.session().arrival_failed()) return prefilled;
  if (cache != nullptr && !cache->StillIntact()) CAIRN_RETURN_IF_ERROR(rebuild());
  result.prefill_seconds = Seconds(clock, prefill_start);

  std::vector<int32_t> tokens(prompt.begin(), prompt.end());
  int64_t decode_start = 0;
  for (int64_t i = 0; i < options.new_tokens; ++i) {
    CAIRN_ASSIGN_OR_RETURN(const NextToken next, runner.Next());
    result.output.push_back(next.token);
    result.logits.insert(result.logits.end(), next.logits.begin(), next.logits.end());
    if (i == 0) {
      result.first_token_seconds = Seconds(clock, start);
      decode_start = clock.NowNanos();
    }
    if (next.token == options.stop_token || i + 1 == options.new_tokens) break;
    if (i == 0 && cache != nullptr && !cache->Settle(runner.session())) {
      CAIRN_RETURN_IF_ERROR(rebuild());
    }
    tokens.push_back(next.token);
    CAIRN_RETURN_IF_ERROR(runner.Decode(next.token));
    if (cache != nullptr) {
      cache->Store(runner.session(), tokens, static_cast<int64_t>(prompt.size()));
    }
  }
  if (cache != nullptr) cache->Finish();
  if (decode_start != 0) result.decode_seconds = Seconds(clock, decode_start);
  return result;
}

absl::StatusOr<SequenceResult> RunSequence(Forward& forward, PrefixCache* cache, Clock& clock,
                                           std::span<const int32_t> prompt,
                                           const SequenceOptions& options) {
  CpuRunner runner(forward);
  return RunSequence(runner, cache, clock, prompt, options);
}

}  // namespace cairn::engine
