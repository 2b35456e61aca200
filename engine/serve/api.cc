#include "engine/serve/api.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_format.h"
#include "engine/text/chat_encoder.h"
#include "engine/text/marks.h"

namespace cairn::engine {
namespace {

using nlohmann::ordered_json;

// What OpenAI's /v1/completions generates unless told otherwise.
constexpr int64_t kCompletionTokensDefault = 16;

// JSON taken apart can be tens of times as large as its text, so of bodies over this one at a time
// is.
constexpr size_t kLargeBodyBytes = 256 << 10;

// Too long is too long whoever asks, and the field to shorten is not always max_tokens.
absl::Status PromptTooLong(const char* field, size_t tokens, int64_t max) {
  return absl::OutOfRangeError(absl::StrCat(field, ": has ", tokens, " tokens; the maximum is ",
                                            max, ", with at least one of the answer"));
}

}  // namespace

Api::Api(Scheduler& scheduler, const Tokenizer& tokenizer, const CacheSlots* cache,
         Metrics& metrics, Clock& clock, Random& random, Options options)
    : scheduler_(scheduler),
      tokenizer_(tokenizer),
      cache_(cache),
      metrics_(metrics),
      clock_(clock),
      random_(random),
      options_(std::move(options)),
      started_(clock.WallMicros() / 1'000'000) {}

absl::StatusOr<Api::Call> Api::Complete(std::string_view body) {
  std::optional<MutexLock> lock;
  if (body.size() > kLargeBodyBytes) lock.emplace(&large_bodies_);
  return ParseAndComplete(body);
}

absl::StatusOr<Api::Call> Api::Chat(std::string_view body) {
  std::optional<MutexLock> lock;
  if (body.size() > kLargeBodyBytes) lock.emplace(&large_bodies_);
  return ParseAndChat(body);
}

absl::StatusOr<Api::Call> Api::ParseAndComplete(std::string_view body) {
  CAIRN_ASSIGN_OR_RETURN(CompletionRequest request, ParseCompletionRequest(body, options_.model));
  std::vector<int32_t> prompt = std::move(request.tokens);
  if (prompt.empty()) {
    CAIRN_ASSIGN_OR_RETURN(prompt, tokenizer_.Encode(request.prompt));
    const std::optional<int32_t> bos = tokenizer_.Mark(kBos);
    if (request.add_bos && bos.has_value()) prompt.insert(prompt.begin(), *bos);
  }
  if (prompt.empty()) return absl::InvalidArgumentError("prompt: must not be empty");
  if (std::ssize(prompt) >= options_.max_positions) {
    return PromptTooLong("prompt", prompt.size(), options_.max_positions);
  }
  CAIRN_ASSIGN_OR_RETURN(Call call, Submit(request, std::move(prompt), /*show_special=*/false,
                                           kCompletionTokensDefault));
  call.answer = MakeCompletionAnswer(Head("cmpl-", request), tokenizer_);
  return call;
}

absl::StatusOr<Api::Call> Api::ParseAndChat(std::string_view body) {
  CAIRN_ASSIGN_OR_RETURN(const ChatRequest request, ParseChatRequest(body, options_.model));
  const PromptText text = EncodeChat(request.messages, request.chat);
  CAIRN_ASSIGN_OR_RETURN(std::vector<int32_t> prompt, tokenizer_.Encode(text.text, text.literal));
  if (std::ssize(prompt) >= options_.max_positions) {
    return PromptTooLong("messages", prompt.size(), options_.max_positions);
  }
  // Marks are shown to the parser, which takes the answer apart by them.
  CAIRN_ASSIGN_OR_RETURN(Call call, Submit(request, std::move(prompt), /*show_special=*/true,
                                           options_.answer_tokens_default));
  call.answer = MakeChatAnswer(Head("chatcmpl-", request), tokenizer_, text.text.ends_with(kThink));
  return call;
}

absl::StatusOr<Api::Call> Api::Submit(const ApiRequest& request, std::vector<int32_t> prompt,
                                      bool show_special, int64_t answer_tokens_default) {
  GenerationRequest wanted;
  const int64_t room = options_.max_positions - std::ssize(prompt);
  wanted.prompt = std::move(prompt);
  wanted.max_tokens = request.max_tokens.value_or(std::min(room, answer_tokens_default));
  wanted.sampling = request.sampling;
  wanted.sampling.seed = request.seed.has_value() ? *request.seed : random_.Next();
  wanted.stop = request.stop;
  wanted.stop_tokens = request.stop_tokens;
  const std::optional<int32_t> eos = tokenizer_.Mark(kEos);
  if (eos.has_value() && !request.ignore_eos) wanted.stop_tokens.push_back(*eos);
  wanted.show_special = show_special;
  Call call;
  CAIRN_ASSIGN_OR_RETURN(call.generation, scheduler_.Submit(std::move(wanted)));
  call.stream = request.stream;
  return call;
}

AnswerHead Api::Head(const char* prefix, const ApiRequest& request) {
  return {.id = absl::StrCat(prefix, absl::StrFormat("%016x", random_.Next())),
          .created = clock_.WallMicros() / 1'000'000,
          .model = options_.model.name,
          .include_usage = request.include_usage,
          .logprobs = request.sampling.top_logprobs != kNoLogprobs};
}

absl::StatusOr<std::string> Api::DescribeModel(const std::string& name) const {
  if (name != options_.model.name) {
    return absl::NotFoundError(
        absl::StrCat("model: \"", options_.model.name, "\" is the only one that is served here"));
  }
  return ordered_json{{"id", name},
                      {"object", "model"},
                      {"created", started_},
                      {"owned_by", "cairn"},
                      {"max_model_len", options_.max_positions}}
      .dump();
}

std::string Api::Models() const {
  return absl::StrCat("{\"object\":\"list\",\"data\":[", *DescribeModel(options_.model.name), "]}");
}

std::string Api::MetricsText() const {
  return metrics_.Render(cache_ == nullptr ? PutStats() : cache_->put_stats(),
                         cache_ != nullptr && cache_->attached(), scheduler_.expert_stats());
}

}  // namespace cairn::engine
