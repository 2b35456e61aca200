// Outputs in, answers out. Each conversation is answered whole and as events, from the same outputs
// cut in every way, and the events joined must say what the whole says.
#include "engine/serve/api_answer.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "engine/text/byte_tokenizer.h"

namespace cairn::engine {
namespace {

using nlohmann::json;

const ByteTokenizer& Tokens() {
  static const ByteTokenizer tokenizer(300);
  return tokenizer;
}

std::vector<Output> Cut(const std::string& text, size_t piece, FinishReason finish) {
  std::vector<Output> outputs;
  for (size_t at = 0; at < text.size(); at += piece) {
    Output output;
    output.text = text.substr(at, piece);
    for (const char byte : output.text) {
      output.tokens.push_back({static_cast<uint8_t>(byte), -0.5, {{'x', -0.25}}});
    }
    outputs.push_back(output);
  }
  if (outputs.empty()) outputs.emplace_back();
  outputs.back().finish = finish;
  outputs.back().prompt_tokens = 200;
  outputs.back().cached_tokens = 128;
  outputs.back().answer_tokens = static_cast<int64_t>(text.size());
  return outputs;
}

AnswerHead Head(bool logprobs = false) {
  return {.id = "chatcmpl-1",
          .created = 7,
          .model = "nano",
          .include_usage = true,
          .logprobs = logprobs};
}

struct Streamed {
  std::string reasoning, content, finish;
  json tool_calls = json::array();
  json logprobs = json::array();
  json usage;
};

// What a client makes of the events.
Streamed Join(ApiAnswer& answer, const std::vector<Output>& outputs) {
  Streamed joined;
  bool first = true;
  for (const Output& output : outputs) {
    for (const std::string& text : answer.Add(output)) {
      const json event = json::parse(text);
      EXPECT_EQ(event["object"], "chat.completion.chunk");
      if (event["choices"].empty()) {
        joined.usage = event["usage"];
        continue;
      }
      EXPECT_TRUE(event["usage"].is_null());
      EXPECT_TRUE(joined.finish.empty()) << "nothing comes behind the end";
      const json& choice = event["choices"][0];
      const json& delta = choice["delta"];
      EXPECT_EQ(delta.contains("role"), std::exchange(first, false));
      if (delta.contains("content")) joined.content += delta["content"].get<std::string>();
      if (delta.contains("reasoning_content")) {
        joined.reasoning += delta["reasoning_content"].get<std::string>();
      }
      if (delta.contains("tool_calls")) {
        json call = delta["tool_calls"][0];
        EXPECT_EQ(call["index"], joined.tool_calls.size());
        call.erase("index");
        joined.tool_calls.push_back(call);
      }
      if (!choice["logprobs"].is_null()) {
        for (const json& each : choice["logprobs"]["content"]) joined.logprobs.push_back(each);
      }
      if (!choice["finish_reason"].is_null()) joined.finish = choice["finish_reason"];
    }
  }
  return joined;
}

constexpr char kCalls[] =
    "why</think>words\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">\n"
    "<｜DSML｜parameter name=\"a\" string=\"true\">b</｜DSML｜parameter>\n</｜DSML｜invoke>\n"
    "<｜DSML｜invoke name=\"g\">\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>";

TEST(ChatAnswer, EventsSayWhatTheWholeSays) {
  const std::vector<std::pair<std::string, FinishReason>> cases = {
      {"why</think>because", FinishReason::kStop},
      {"why</think>because", FinishReason::kLength},
      {"never ends", FinishReason::kLength},
      {"", FinishReason::kStop},
      {kCalls, FinishReason::kStop},
  };
  for (const auto& [text, finish] : cases) {
    for (const size_t piece : {1, 3, 1000}) {
      const std::vector<Output> outputs = Cut(text, piece, finish);
      const auto answer = MakeChatAnswer(Head(true), Tokens(), /*thinking=*/true);
      const Streamed joined = Join(*answer, outputs);
      const json whole = json::parse(answer->Whole());
      const json& choice = whole["choices"][0];
      EXPECT_EQ(whole["object"], "chat.completion");
      EXPECT_EQ(choice["message"].value("reasoning_content", ""), joined.reasoning);
      EXPECT_EQ(choice["message"]["content"].is_null()
                    ? ""
                    : choice["message"]["content"].get<std::string>(),
                joined.content);
      EXPECT_EQ(choice["message"].value("tool_calls", json::array()), joined.tool_calls);
      EXPECT_EQ(choice["finish_reason"], joined.finish);
      EXPECT_EQ(choice["logprobs"]["content"], joined.logprobs);
      EXPECT_EQ(joined.logprobs.size(), text.size());
      EXPECT_EQ(whole["usage"], joined.usage);
    }
  }
}

TEST(ChatAnswer, ReasoningContentAndCallsAreApart) {
  const auto answer = MakeChatAnswer(Head(), Tokens(), true);
  answer->Add(Cut(kCalls, 1000, FinishReason::kStop)[0]);
  const json choice = json::parse(answer->Whole())["choices"][0];
  EXPECT_EQ(choice["message"]["reasoning_content"], "why");
  EXPECT_EQ(choice["message"]["content"], "words");
  ASSERT_EQ(choice["message"]["tool_calls"].size(), 2u);
  EXPECT_EQ(choice["message"]["tool_calls"][0]["function"]["name"], "f");
  EXPECT_EQ(choice["message"]["tool_calls"][0]["function"]["arguments"], R"({"a": "b"})");
  EXPECT_NE(choice["message"]["tool_calls"][0]["id"], choice["message"]["tool_calls"][1]["id"]);
  EXPECT_EQ(choice["finish_reason"], "tool_calls");
  EXPECT_TRUE(choice["logprobs"].is_null());
}

TEST(ChatAnswer, UsageSaysWhatWasCached) {
  const auto answer = MakeChatAnswer(Head(), Tokens(), false);
  answer->Add(Cut("hello", 1000, FinishReason::kStop)[0]);
  EXPECT_EQ(json::parse(answer->Whole())["usage"], json::parse(R"({
    "prompt_tokens": 200, "completion_tokens": 5, "total_tokens": 205,
    "prompt_tokens_details": {"cached_tokens": 128},
    "prompt_cache_hit_tokens": 128, "prompt_cache_miss_tokens": 72})"));
}

TEST(CompletionAnswer, EventsSayWhatTheWholeSays) {
  for (const size_t piece : {1, 2, 1000}) {
    const auto answer = MakeCompletionAnswer(Head(true), Tokens());
    std::string text;
    json tokens = json::array();
    json offsets = json::array();
    std::string finish;
    for (const Output& output : Cut("hello", piece, FinishReason::kLength)) {
      for (const std::string& event : answer->Add(output)) {
        const json parsed = json::parse(event);
        EXPECT_EQ(parsed["object"], "text_completion");
        if (parsed["choices"].empty()) continue;
        const json& choice = parsed["choices"][0];
        text += choice["text"].get<std::string>();
        for (const json& token : choice["logprobs"]["tokens"]) tokens.push_back(token);
        for (const json& offset : choice["logprobs"]["text_offset"]) offsets.push_back(offset);
        if (!choice["finish_reason"].is_null()) finish = choice["finish_reason"];
      }
    }
    const json choice = json::parse(answer->Whole())["choices"][0];
    EXPECT_EQ(choice["text"], text);
    EXPECT_EQ(text, "hello");
    EXPECT_EQ(choice["logprobs"]["tokens"], tokens);
    EXPECT_EQ(choice["logprobs"]["text_offset"], offsets);
    EXPECT_EQ(offsets, json::parse("[0, 1, 2, 3, 4]"));
    EXPECT_EQ(choice["logprobs"]["top_logprobs"][0], json::parse(R"({"x": -0.25, "h": -0.5})"));
    EXPECT_EQ(choice["finish_reason"], "length");
    EXPECT_EQ(finish, "length");
  }
}

}  // namespace
}  // namespace cairn::engine
