// api_request.h: the bodies of /v1/completions and /v1/chat/completions, checked.
//
// Fields and their meanings are OpenAI's; with thinking and reasoning_effort as DeepSeek has them,
// and vLLM's top_k, min_p, repetition_penalty, stop_token_ids, ignore_eos and add_special_tokens.
// What is known and not offered is refused by name rather than passed over; what is not known is
// passed over, as clients expect.
//
// Threads: pure functions.
// Errors:  INVALID_ARGUMENT "field: what"; "body: ..." where there is no field. NOT_FOUND for
//          another model.
#ifndef CAIRN_ENGINE_SERVE_API_REQUEST_H_
#define CAIRN_ENGINE_SERVE_API_REQUEST_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/sample/sampling_params.h"
#include "engine/text/chat_encoder.h"
#include "engine/text/chat_message.h"
#include "store/base/status.h"

namespace cairn::engine {

inline constexpr size_t kStopsMax = 16;
inline constexpr size_t kStopBytesMax = 1024;
inline constexpr size_t kStopTokensMax = 256;

// What both have.
struct ApiRequest {
  std::optional<int64_t> max_tokens;
  SamplingParams sampling;
  std::optional<uint64_t> seed;
  std::vector<std::string> stop;
  std::vector<int32_t> stop_tokens;
  bool ignore_eos = false;
  bool stream = false;
  bool include_usage = false;  // in a stream
};

struct CompletionRequest : ApiRequest {
  std::string prompt;           // if there are no
  std::vector<int32_t> tokens;  // the prompt as tokens
  bool add_bos = true;          // to text
};

struct ChatRequest : ApiRequest {
  std::vector<Message> messages;
  ChatOptions chat;
};

struct ServedModel {
  std::string name;
  int64_t vocab = 0;
};

absl::StatusOr<CompletionRequest> ParseCompletionRequest(std::string_view body,
                                                         const ServedModel& model);
absl::StatusOr<ChatRequest> ParseChatRequest(std::string_view body, const ServedModel& model);

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_SERVE_API_REQUEST_H_
