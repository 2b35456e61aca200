// Bodies in, requests out: what is taken means what the API says, and what is not is refused with
// the field's name.
#include "engine/serve/api_request.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "engine/serve/api_error.h"

namespace cairn::engine {
namespace {

const ServedModel kModel{"nano", 64};

struct Refused {
  std::string fields;  // put into an otherwise good body
  std::string param;
};

constexpr char kText[] = R"("model": "nano", "prompt": "a")";
constexpr char kTalk[] = R"("model": "nano", "messages": [{"role": "user", "content": "a"}])";

std::string Body(const std::string& good, const std::string& fields) {
  return "{" + good + (fields.empty() ? "" : ", ") + fields + "}";
}

void ExpectRefused(const absl::Status& status, const std::string& param, const std::string& what) {
  ASSERT_FALSE(status.ok()) << what;
  const ApiError error = ErrorOf(status);
  EXPECT_EQ(error.http_status, 400) << what;
  EXPECT_EQ(error.type, "invalid_request_error") << what;
  EXPECT_EQ(error.param, param) << what << " " << status;
  EXPECT_LE(error.message.size(), 300u) << what;
}

TEST(ApiRequest, SharedFieldsAreRefusedByName) {
  std::string stops = R"("x")";
  for (size_t i = 0; i < kStopsMax; ++i) stops += R"(, "x")";
  const std::vector<Refused> cases = {
      {R"("temperature": "hot")", "temperature"},
      {R"("temperature": 7)", "temperature"},
      {R"("temperature": -1)", "temperature"},
      {R"("top_p": 0)", "top_p"},
      {R"("top_p": true)", "top_p"},
      {R"("top_k": 1.5)", "top_k"},
      {R"("top_k": -2)", "top_k"},
      {R"("min_p": 2)", "min_p"},
      {R"("presence_penalty": 3)", "presence_penalty"},
      {R"("frequency_penalty": [])", "frequency_penalty"},
      {R"("repetition_penalty": 0)", "repetition_penalty"},
      {R"("seed": "x")", "seed"},
      {R"("seed": 18446744073709551615)", "seed"},
      {R"("logit_bias": [1])", "logit_bias"},
      {R"("logit_bias": {"a": 1})", "logit_bias"},
      {R"("logit_bias": {"64": 1})", "logit_bias"},
      {R"("logit_bias": {"-1": 1})", "logit_bias"},
      {R"("logit_bias": {"1": "x"})", "logit_bias"},
      {R"("logit_bias": {"1": 1000})", "logit_bias"},
      {R"("max_tokens": 0)", "max_tokens"},
      {R"("max_tokens": "many")", "max_tokens"},
      {R"("max_completion_tokens": -5)", "max_tokens"},
      {R"("n": 2)", "n"},
      {R"("n": 0)", "n"},
      {R"("best_of": 3)", "best_of"},
      {R"("echo": true)", "echo"},
      {R"("suffix": "x")", "suffix"},
      {R"("stop": 1)", "stop"},
      {R"("stop": "")", "stop"},
      {R"("stop": ["x", 2])", "stop[1]"},
      {R"("stop": [")" + std::string(kStopBytesMax + 1, 'x') + "\"]", "stop[0]"},
      {R"("stop": [)" + stops + "]", "stop"},
      {R"("stop_token_ids": [64])", "stop_token_ids[0]"},
      {R"("stop_token_ids": 1)", "stop_token_ids"},
      {R"("stream": "yes")", "stream"},
      {R"("stream_options": {"include_usage": true})", "stream_options"},
      {R"("stream": true, "stream_options": {"include_usage": 1})", "stream_options.include_usage"},
      {R"("ignore_eos": 0)", "ignore_eos"},
      {R"("guided_json": {})", "guided_json"},
  };
  for (const auto& [fields, param] : cases) {
    ExpectRefused(ParseCompletionRequest(Body(kText, fields), kModel).status(), param, fields);
    ExpectRefused(ParseChatRequest(Body(kTalk, fields), kModel).status(), param, fields);
  }
}

TEST(ApiRequest, BodiesThatAreNone) {
  for (const std::string body :
       {"", "{", "[]", "null", "\"x\"", "{\"model\": \"nano\", \"prompt\": \"\xff\"}",
        "{\"model\": \"nano\", \"prompt\": \"a\"} trailing"}) {
    ExpectRefused(ParseCompletionRequest(body, kModel).status(), "", body);
  }
  ExpectRefused(ParseCompletionRequest(std::string(100000, '['), kModel).status(), "", "deep");
  ExpectRefused(ParseCompletionRequest("{}", kModel).status(), "model", "no model");
  ExpectRefused(ParseCompletionRequest(R"({"model": 5})", kModel).status(), "model", "a number");
  const ApiError error = ErrorOf(
      ParseCompletionRequest("{\"model\": \"" + std::string(5000, 'm') + "\"}", kModel).status());
  EXPECT_EQ(error.http_status, 404);
  EXPECT_EQ(error.code, "model_not_found");
  EXPECT_EQ(error.param, "model");
  EXPECT_LE(error.message.size(), 300u);
}

TEST(ApiRequest, Prompts) {
  const auto parse = [](const std::string& prompt) {
    return ParseCompletionRequest(R"({"model": "nano", "prompt": )" + prompt + "}", kModel);
  };
  EXPECT_EQ(parse(R"("abc")")->prompt, "abc");
  EXPECT_EQ(parse(R"(["abc"])")->prompt, "abc");
  EXPECT_EQ(parse("[1, 2]")->tokens, (std::vector<int32_t>{1, 2}));
  EXPECT_EQ(parse("[[1, 2]]")->tokens, (std::vector<int32_t>{1, 2}));
  for (const auto& [prompt, param] :
       std::vector<std::pair<std::string, std::string>>{{"null", "prompt"},
                                                        {"5", "prompt"},
                                                        {"[]", "prompt"},
                                                        {"[[]]", "prompt"},
                                                        {R"(["a", "b"])", "prompt"},
                                                        {"[1, 64]", "prompt[1]"},
                                                        {"[1, -1]", "prompt[1]"},
                                                        {"[1, 1.5]", "prompt[1]"},
                                                        {R"([1, "x"])", "prompt[1]"},
                                                        {"[18446744073709551615]", "prompt[0]"}}) {
    ExpectRefused(parse(prompt).status(), param, prompt);
  }
}

TEST(ApiRequest, ChatFieldsAreRefusedByName) {
  const std::vector<Refused> cases = {
      {R"("logprobs": 3)", "logprobs"},
      {R"("top_logprobs": 3)", "top_logprobs"},
      {R"("logprobs": true, "top_logprobs": 21)", "top_logprobs"},
      {R"("thinking": true)", "thinking"},
      {R"("thinking": {"type": "maybe"})", "thinking.type"},
      {R"("reasoning_effort": "little")", "reasoning_effort"},
      {R"("thinking": {"type": "enabled"}, "reasoning_effort": "none")", "reasoning_effort"},
      {R"("tool_choice": "required")", "tool_choice"},
      {R"("tool_choice": {"type": "function"})", "tool_choice"},
      {R"("parallel_tool_calls": false)", "parallel_tool_calls"},
      {R"("functions": [])", "functions"},
      {R"("response_format": {"type": "json_object"})", "response_format.type"},
      {R"("tools": [{"type": "function"}])", "tools[0].function"},
  };
  for (const auto& [fields, param] : cases) {
    ExpectRefused(ParseChatRequest(Body(kTalk, fields), kModel).status(), param, fields);
  }
  const auto messages = [](const std::string& text) {
    return ParseChatRequest(R"({"model": "nano", "messages": )" + text + "}", kModel).status();
  };
  ExpectRefused(messages("[]"), "messages", "empty");
  ExpectRefused(messages(R"("hi")"), "messages", "text");
  ExpectRefused(messages(R"([{"role": "king", "content": "x"}])"), "messages[0].role", "role");
  ExpectRefused(messages(R"([{"role": ")" + std::string(9000, 'k') + R"(", "content": "x"}])"),
                "messages[0].role", "long role");
  ExpectRefused(messages(R"([{"role": "user"}])"), "messages[0].content", "no content");
  ExpectRefused(messages(R"([{"role": "user", "content": "x"},
                             {"role": "assistant", "content": "y"}])"),
                "messages[1]", "ends with an answer");
  ExpectRefused(ParseChatRequest(R"({"model": "nano"})", kModel).status(), "messages", "none");
}

TEST(ApiRequest, FieldsMeanWhatTheApiSays) {
  const auto request = ParseChatRequest(
      Body(kTalk, R"("temperature": 0.5, "top_p": 0.9, "top_k": -1, "min_p": 0.1, "seed": -3,
           "logit_bias": {"5": -100}, "stop": ["a", "b"], "stop_token_ids": [7], "stream": true,
           "stream_options": {"include_usage": true}, "max_tokens": 5,
           "max_completion_tokens": 9, "logprobs": true, "top_logprobs": 4, "unknown": {}, "user": "me",
           "temperature": null)"),
      kModel);
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->sampling.temperature, 1)
      << "of a key given twice the last counts; null is absent";
  EXPECT_EQ(request->sampling.top_p, 0.9);
  EXPECT_EQ(request->sampling.top_k, 0);
  EXPECT_EQ(request->seed, static_cast<uint64_t>(-3));
  EXPECT_EQ(request->sampling.logit_bias, (std::vector<std::pair<int32_t, double>>{{5, -100.0}}));
  EXPECT_EQ(request->stop, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(request->stop_tokens, (std::vector<int32_t>{7}));
  EXPECT_TRUE(request->stream);
  EXPECT_TRUE(request->include_usage);
  EXPECT_EQ(request->max_tokens, 9);
  EXPECT_EQ(request->sampling.top_logprobs, 4);
}

TEST(ApiRequest, ThinkingModes) {
  const std::vector<std::pair<std::string, ThinkingMode>> cases = {
      {"", ThinkingMode::kHigh},
      {R"("thinking": {"type": "enabled"})", ThinkingMode::kHigh},
      {R"("thinking": {"type": "disabled"})", ThinkingMode::kNone},
      {R"("thinking": {"type": "disabled"}, "reasoning_effort": "max")", ThinkingMode::kNone},
      {R"("reasoning_effort": "none")", ThinkingMode::kNone},
      {R"("reasoning_effort": "low")", ThinkingMode::kHigh},
      {R"("reasoning_effort": "high")", ThinkingMode::kHigh},
      {R"("reasoning_effort": "max")", ThinkingMode::kMax},
  };
  for (const auto& [fields, mode] : cases) {
    const auto request = ParseChatRequest(Body(kTalk, fields), kModel);
    ASSERT_TRUE(request.ok()) << request.status();
    EXPECT_EQ(request->chat.mode, mode) << fields;
  }
}

TEST(ApiRequest, ToolsAreShownUnlessTheChoiceIsNone) {
  const std::string tools = R"("tools": [{"type": "function", "function": {"name": "f"}}])";
  EXPECT_EQ(ParseChatRequest(Body(kTalk, tools), kModel)->messages[0].tools.size(), 1u);
  EXPECT_TRUE(ParseChatRequest(Body(kTalk, tools + R"(, "tool_choice": "none")"), kModel)
                  ->messages[0]
                  .tools.empty());
}

TEST(ApiError, HasTheApisShape) {
  const auto parsed =
      nlohmann::json::parse(ErrorBody(ErrorOf(absl::OutOfRangeError("max_tokens: too \"many\""))));
  EXPECT_EQ(parsed["error"]["message"], "max_tokens: too \"many\"");
  EXPECT_EQ(parsed["error"]["param"], "max_tokens");
  EXPECT_EQ(parsed["error"]["code"], "context_length_exceeded");
  EXPECT_EQ(parsed["error"]["type"], "invalid_request_error");
  const auto none = nlohmann::json::parse(ErrorBody(ErrorOf(absl::ResourceExhaustedError("full"))));
  EXPECT_TRUE(none["error"]["param"].is_null());
  EXPECT_EQ(ErrorOf(absl::ResourceExhaustedError("full")).http_status, 429);
  EXPECT_EQ(ErrorOf(absl::UnavailableError("bye")).http_status, 503);
  EXPECT_EQ(ErrorOf(absl::InternalError("oh")).http_status, 500);
}

}  // namespace
}  // namespace cairn::engine
