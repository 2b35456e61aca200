// Bodies of the HTTP API (engine/serve/api_request.h), as a completion's and as a chat's, and the
// prompt that a chat that was taken makes.
#include "engine/serve/api_request.h"

#include <nlohmann/json.hpp>

#include "engine/serve/api_error.h"
#include "engine/text/byte_tokenizer.h"
#include "tests/fuzz/fuzz_input.h"

namespace {

using namespace cairn::engine;

constexpr int64_t kVocab = 300;

void CheckRefused(const absl::Status& status) {
  cairn::fuzz::CheckRefusal(status);
  FUZZ_CHECK(absl::IsInvalidArgument(status) || absl::IsNotFound(status));
  const ApiError error = ErrorOf(status);
  FUZZ_CHECK(error.http_status == 400 || error.http_status == 404);
  FUZZ_CHECK(nlohmann::json::accept(ErrorBody(error)));
}

void CheckTaken(const ApiRequest& request) {
  FUZZ_CHECK_OK(CheckSampling(request.sampling, kVocab));
  FUZZ_CHECK(request.max_tokens.value_or(1) >= 1);
  FUZZ_CHECK(request.stop.size() <= kStopsMax);
  for (const std::string& stop : request.stop) {
    FUZZ_CHECK(!stop.empty() && stop.size() <= kStopBytesMax && IsUtf8(stop));
  }
  FUZZ_CHECK(request.stop_tokens.size() <= kStopTokensMax);
  FUZZ_CHECK(request.stream || !request.include_usage);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string body = cairn::fuzz::FuzzInput(data, size).TakeRestText();
  const ByteTokenizer tokenizer(kVocab);
  const ServedModel model{"nano", kVocab};
  if (const auto completion = ParseCompletionRequest(body, model); completion.ok()) {
    CheckTaken(*completion);
    FUZZ_CHECK_OK(tokenizer.Check(completion->tokens));
    FUZZ_CHECK_OK(tokenizer.Check(completion->stop_tokens));
    FUZZ_CHECK(completion->prompt.empty() || completion->tokens.empty());
  } else {
    CheckRefused(completion.status());
  }
  const auto chat = ParseChatRequest(body, model);
  if (!chat.ok()) {
    CheckRefused(chat.status());
    return 0;
  }
  CheckTaken(*chat);
  const PromptText prompt = EncodeChat(chat->messages, chat->chat);
  FUZZ_CHECK(IsUtf8(prompt.text));
  size_t end = 0;
  for (const TextRange& range : prompt.literal) {
    FUZZ_CHECK(range.begin >= end && range.begin < range.end && range.end <= prompt.text.size());
    end = range.end;
  }
  FUZZ_CHECK_OK(tokenizer.Encode(prompt.text, prompt.literal).status());
  return 0;
}
