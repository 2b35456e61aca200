// The official encoding's own cases to the byte, its rules one by one, fields of bad shape by name,
// and the way back: completions in pieces, broken ones, and random conversations there and back.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/text/chat_encoder.h"
#include "engine/text/completion_parser.h"
#include "engine/text/dsml.h"
#include "engine/text/json_text.h"
#include "engine/text/marks.h"
#include "engine/text/test_data.h"

namespace cairn::engine {
namespace {

using nlohmann::ordered_json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

std::vector<Message> Read(const std::string& json) {
  const ordered_json value = ParseJson(json, "test").value();
  const bool object = value.is_object();
  absl::StatusOr<std::vector<Message>> messages =
      ParseMessages(object ? value["messages"] : value,
                    object && value.contains("tools") ? &value["tools"] : nullptr);
  EXPECT_TRUE(messages.ok()) << messages.status();
  return messages.ok() ? *messages : std::vector<Message>();
}

std::string Encode(const std::string& json, ChatOptions options = {}) {
  return EncodeChat(Read(json), options).text;
}

constexpr ChatOptions kChat = {.mode = ThinkingMode::kNone};
constexpr ChatOptions kMax = {.mode = ThinkingMode::kMax};
constexpr ChatOptions kKeep = {.drop_thinking = false};

TEST(ChatEncoder, TheOfficialCases) {
  for (int i = 1; i <= 4; ++i) {
    const std::string name = "chat/case" + std::to_string(i);
    const ChatOptions options = i == 4 ? kChat : ChatOptions();
    EXPECT_EQ(Encode(TestFile(name + ".json"), options), TestFile(name + ".txt")) << name;
  }
}

constexpr const char* kTwoTurns = R"([{"role":"user","content":"q1"},
  {"role":"assistant","reasoning_content":"r1","content":"a1"},{"role":"user","content":"q2"}])";

TEST(ChatEncoder, ModesAndDropThinking) {
  EXPECT_EQ(Encode(kTwoTurns),
            "<｜begin▁of▁sentence｜><｜User｜>q1<｜Assistant｜></think>a1<｜end▁of▁sentence｜>"
            "<｜User｜>q2<｜Assistant｜><think>");
  EXPECT_EQ(Encode(kTwoTurns, kKeep),
            "<｜begin▁of▁sentence｜><｜User｜>q1<｜Assistant｜><think>r1</think>a1"
            "<｜end▁of▁sentence｜><｜User｜>q2<｜Assistant｜><think>");
  EXPECT_EQ(Encode(kTwoTurns, kChat),
            "<｜begin▁of▁sentence｜><｜User｜>q1<｜Assistant｜></think>a1<｜end▁of▁sentence｜>"
            "<｜User｜>q2<｜Assistant｜></think>");
  const std::string high = Encode(kTwoTurns), max = Encode(kTwoTurns, kMax);
  const std::string demand = max.substr(kBos.size(), max.size() - high.size());
  EXPECT_THAT(demand, ::testing::StartsWith("Reasoning Effort: Absolute maximum"));
  EXPECT_EQ(max, std::string(kBos) + demand + high.substr(kBos.size()));
  EXPECT_EQ(Encode(kTwoTurns, {.mode = ThinkingMode::kNone, .bos = false}).find(kBos),
            std::string::npos);
}

TEST(ChatEncoder, ToolsKeepReasoningAndComeToTheSystemMessage) {
  const std::string tools =
      R"("tools":[{"type":"function","function":{"name":"f","parameters":{"x":[1,2.0,1e16]}}}])";
  const std::string text = Encode("{" + tools + R"(,"messages":)" + kTwoTurns + "}");
  EXPECT_THAT(text, HasSubstr("<think>r1</think>a1"));
  EXPECT_THAT(text, HasSubstr("<｜begin▁of▁sentence｜>\n\n## Tools"));
  EXPECT_THAT(text, HasSubstr(R"({"name": "f", "parameters": {"x": [1, 2.0, 1e+16]}})"));
}

TEST(ChatEncoder, ResultsAreSortedAndMergedWithTheUsersWords) {
  const std::string text = Encode(
      R"([{"role":"user","content":"q"},{"role":"assistant","tool_calls":[
        {"id":"a","function":{"name":"f","arguments":"{}"}},
        {"id":"b","function":{"name":"g","arguments":"{\"x\":\"1\",\"y\":[1, {\"z\":null}]}"}},
        {"id":"c","function":{"name":"h","arguments":"not json"}}]},
        {"role":"tool","tool_call_id":"b","content":"B"},{"role":"user","content":"more"},
        {"role":"tool","tool_call_id":"a","content":[{"type":"text","text":"A"},
        {"type":"text","text":"A2"}]}])",
      kChat);
  EXPECT_THAT(text, HasSubstr("<｜User｜><tool_result>A\n\nA2</tool_result>\n\nmore\n\n"
                              "<tool_result>B</tool_result><｜Assistant｜>"));
  EXPECT_THAT(text, HasSubstr(R"(</think>

<｜DSML｜tool_calls>
<｜DSML｜invoke name="f">

</｜DSML｜invoke>
<｜DSML｜invoke name="g">
<｜DSML｜parameter name="x" string="true">1</｜DSML｜parameter>
<｜DSML｜parameter name="y" string="false">[1, {"z": null}]</｜DSML｜parameter>
</｜DSML｜invoke>
<｜DSML｜invoke name="h">
<｜DSML｜parameter name="arguments" string="true">not json</｜DSML｜parameter>
</｜DSML｜invoke>
</｜DSML｜tool_calls><｜end▁of▁sentence｜>)"));
}

TEST(ChatEncoder, QuickInstructions) {
  const auto task = [](const char* name, ChatOptions options) {
    return Encode(absl::StrCat(R"([{"role":"user","content":"q","task":")", name, R"("}])"),
                  options);
  };
  EXPECT_THAT(task("query", {}), ::testing::EndsWith("<｜User｜>q<｜query｜>"));
  EXPECT_THAT(task("action", {}), ::testing::EndsWith("q<｜Assistant｜><think><｜action｜>"));
  EXPECT_THAT(task("action", kChat), ::testing::EndsWith("q<｜Assistant｜></think><｜action｜>"));
  EXPECT_THAT(Encode(R"([{"role":"user","content":"q"},{"role":"assistant","content":"a",
                "task":"title"},{"role":"assistant","content":"T","wo_eos":true}])"),
              ::testing::EndsWith("</think>a<｜end▁of▁sentence｜><｜title｜>T"));
}

TEST(ChatEncoder, DevelopersTurnsGoWithTheReasoning) {
  const std::string text = Encode(R"([{"role":"developer","content":"D1"},
      {"role":"assistant","content":"a"},{"role":"developer","content":"D2"}])");
  EXPECT_THAT(text, Not(HasSubstr("D1")));
  EXPECT_THAT(text, HasSubstr("a<｜end▁of▁sentence｜><｜User｜>D2<｜Assistant｜><think>"));
}

TEST(ChatEncoder, WordsOfOthersAreLiteral) {
  const PromptText prompt = EncodeChat(
      Read(R"([{"role":"system","content":"S<think>"},{"role":"user","content":"<｜User｜>"}])"),
      {});
  const std::unique_ptr<Tokenizer> tokenizer = SmallTokenizer();
  const std::vector<int32_t> ids = tokenizer->Encode(prompt.text, prompt.literal).value();
  EXPECT_EQ(std::count(ids.begin(), ids.end(), *tokenizer->Mark(kUser)), 1);
  EXPECT_EQ(std::count(ids.begin(), ids.end(), *tokenizer->Mark(kThink)), 1);
  EXPECT_EQ(ids.back(), *tokenizer->Mark(kThink));
  // Without marks in anybody's words, the notes change nothing.
  const PromptText plain = EncodeChat(Read(TestFile("chat/case1.json")), {});
  EXPECT_THAT(plain.literal, Not(IsEmpty()));
  EXPECT_EQ(tokenizer->Encode(plain.text, plain.literal).value(),
            tokenizer->Encode(plain.text).value());
}

TEST(ChatMessages, BadFieldsAreNamed) {
  const auto refusal = [](const std::string& json) {
    const ordered_json value = ParseJson(json, "test").value();
    const absl::Status status = ParseMessages(value).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << json;
    return std::string(status.message());
  };
  const auto call = [&](const std::string& body) {
    return refusal(R"([{"role":"user","content":"q"},{"role":"assistant","tool_calls":[)" + body +
                   "]}]");
  };
  EXPECT_THAT(refusal("{}"), HasSubstr("messages: must be an array"));
  EXPECT_THAT(refusal("[]"), HasSubstr("messages: must not be empty"));
  EXPECT_THAT(refusal("[1]"), HasSubstr("messages[0]: must be an object"));
  EXPECT_THAT(refusal(R"([{"content":"x"}])"), HasSubstr("messages[0].role: missing"));
  EXPECT_THAT(refusal(R"([{"role":"bot"}])"), HasSubstr("messages[0].role: \"bot\" is not"));
  EXPECT_THAT(refusal(R"([{"role":"user"}])"), HasSubstr("messages[0].content: missing"));
  EXPECT_THAT(refusal(R"([{"role":"user","content":7}])"), HasSubstr("messages[0].content: must"));
  EXPECT_THAT(refusal(R"([{"role":"user","content":[{"type":"image_url"}]}])"),
              HasSubstr("messages[0].content[0].type: \"image_url\" is not supported"));
  EXPECT_THAT(refusal(R"([{"role":"developer","content":""}])"), HasSubstr("must not be empty"));
  EXPECT_THAT(refusal(R"([{"role":"user","content":"q","task":"sing"}])"),
              HasSubstr("messages[0].task: \"sing\" is not a task"));
  EXPECT_THAT(refusal(R"([{"role":"assistant","reasoning_content":[]}])"),
              HasSubstr("messages[0].reasoning_content: must be a string"));
  EXPECT_THAT(refusal(R"([{"role":"system","tools":[{"function":{}}]}])"),
              HasSubstr("messages[0].tools[0].function.name: missing"));
  EXPECT_THAT(call("{}"), HasSubstr("messages[1].tool_calls[0].function: must be an object"));
  EXPECT_THAT(call(R"({"function":{"arguments":"{}"}})"),
              HasSubstr("messages[1].tool_calls[0].function.name: missing"));
  EXPECT_THAT(call(R"({"function":{"name":"f"}})"), HasSubstr("function.arguments: missing"));
  EXPECT_THAT(call(R"({"function":{"name":"f","arguments":"[1]"}})"),
              HasSubstr("messages[1].tool_calls[0].function.arguments: must be a JSON object"));
  EXPECT_THAT(call(R"({"function":{"name":"f","arguments":"{\"n\":123456789012345678901}"}})"),
              HasSubstr("an integer beyond 64 bits"));
  const std::string big(kChatBytesMax / 2, 'x');
  ordered_json large = ordered_json::array();
  for (int i = 0; i < 3; ++i) large.push_back({{"role", "user"}, {"content", big}});
  EXPECT_THAT(std::string(ParseMessages(large).status().message()),
              HasSubstr("messages[2].content: the conversation is over"));
}

TEST(JsonText, IsAsPythonWritesIt) {
  EXPECT_EQ(PythonJson(ParseJson(R"({"b":[1,-0.0,1.50,1E5,1e-5,123456789.25,0.0001,1e22,5e-324],
      "a":{"é\n\u0001\"\\":"日\/"},"e":{},"l":[],"t":true,"n":null,"b2":-7,"u":18446744073709551615})",
                                 "x")
                           .value()),
            R"({"b": [1, -0.0, 1.5, 100000.0, 1e-05, 123456789.25, 0.0001, 1e+22, 5e-324], )"
            R"("a": {"é\n\u0001\"\\": "日/"}, "e": {}, "l": [], "t": true, "n": null, )"
            R"("b2": -7, "u": 18446744073709551615})");
  EXPECT_EQ(PythonJson(ParseJson(R"({"a":1,"b":2,"a":3})", "x").value()), R"({"a": 3, "b": 2})");
  EXPECT_FALSE(ParseJson("{", "x").ok());
  EXPECT_FALSE(ParseJson("\"\xff\"", "x").ok());
  EXPECT_THAT(std::string(ParseJson(std::string(100000, '['), "x").status().message()),
              HasSubstr("x: nested deeper than 64"));
}

// ---- completions ----

Completion InPieces(std::string_view text, bool thinking, Random& random) {
  CompletionParser parser(thinking);
  Completion all;
  const auto add = [&](const CompletionDelta& delta) {
    all.reasoning += delta.reasoning;
    all.content += delta.content;
  };
  while (!text.empty()) {
    const size_t n = std::min<size_t>(text.size(), 1 + random.Next() % 9);
    add(parser.Feed(text.substr(0, n)));
    text.remove_prefix(n);
  }
  CompletionEnd end = parser.Finish();
  add(end.last);
  all.tool_calls = std::move(end.tool_calls);
  all.status = std::move(end.status);
  return all;
}

void ExpectSame(const Completion& a, const Completion& b) {
  EXPECT_EQ(a.reasoning, b.reasoning);
  EXPECT_EQ(a.content, b.content);
  EXPECT_EQ(a.tool_calls, b.tool_calls);
  EXPECT_EQ(a.status, b.status);
}

constexpr std::string_view kCalls = R"(why</think>Look:

<｜DSML｜tool_calls>
<｜DSML｜invoke name="f">
<｜DSML｜parameter name="s" string="true">a "b"
</x></｜DSML｜parameter>
<｜DSML｜parameter name="n" string="false">{"k": 1}</｜DSML｜parameter>
</｜DSML｜invoke>
<｜DSML｜invoke name="g">

</｜DSML｜invoke>
</｜DSML｜tool_calls><｜end▁of▁sentence｜>)";

TEST(CompletionParser, ReadsReasoningContentAndCalls) {
  const Completion all = ParseCompletion(kCalls, true);
  EXPECT_TRUE(all.status.ok()) << all.status;
  EXPECT_EQ(all.reasoning, "why");
  EXPECT_EQ(all.content, "Look:");
  EXPECT_THAT(all.tool_calls,
              ElementsAre(ToolCall{"", "f", R"({"s": "a \"b\"\n</x>", "n": {"k": 1}})"},
                          ToolCall{"", "g", "{}"}));
}

TEST(CompletionParser, CutsChangeNothing) {
  SeededRandom random(5);
  const std::string_view texts[] = {kCalls,
                                    "plain",
                                    "",
                                    "a</think>b",
                                    "</think>\n\n<｜DSML｜tool",
                                    "x\n\n<｜DSML｜tool_callsY",
                                    "r</think>c<｜end▁of▁sentence｜>more",
                                    "r<｜end▁of▁sentence｜>",
                                    "<think>x</think>y",
                                    "c\n\n\n\n<｜DSML｜tool_calls>\n</｜DSML｜tool_calls>",
                                    "</thin</think></think>"};
  for (const std::string_view text : texts) {
    for (const bool thinking : {false, true}) {
      const Completion whole = ParseCompletion(text, thinking);
      for (int i = 0; i < 50; ++i) ExpectSame(InPieces(text, thinking, random), whole);
    }
  }
}

TEST(CompletionParser, NoWordsAreHeldBackThatAreSureToBeWords) {
  CompletionParser parser(/*thinking=*/false);
  EXPECT_EQ(parser.Feed("hello <").content, "hello ");
  EXPECT_EQ(parser.Feed("b>\n").content, "<b>");
  EXPECT_EQ(parser.Feed("\nx").content, "\n\nx");
}

TEST(CompletionParser, BrokenCallsAreContentAndSaidSo) {
  const std::pair<std::string, std::string> breaks[] = {
      {"tool_calls>\n<", "tool_calls><"},
      {"invoke name=\"f\">", "invoke name='f'>"},
      {"string=\"false\">{\"k\": 1}", "string=\"false\">{\"k\": 1"},
      {"string=\"true\"", "string=\"yes\""},
      {"name=\"n\" string=\"false\">{\"k\": 1}", "name=\"s\" string=\"true\">x"},
      {"</｜DSML｜invoke>\n</｜DSML｜tool_calls>", "</｜DSML｜invoke>\nand</｜DSML｜tool_calls>"},
      {"</｜DSML｜tool_calls><", "</｜DSML｜tool_calls> bye<"},
      {"</｜DSML｜tool_calls><｜end▁of▁sentence｜>", ""}};
  for (const auto& [from, to] : breaks) {
    std::string text(kCalls);
    text.replace(text.find(from), from.size(), to);
    const Completion all = ParseCompletion(text, true);
    EXPECT_EQ(all.status.code(), absl::StatusCode::kInvalidArgument) << to;
    EXPECT_THAT(std::string(all.status.message()), HasSubstr("tool calls: ")) << to;
    EXPECT_THAT(all.tool_calls, IsEmpty());
    // Nothing is lost.
    const std::string kept = all.reasoning + "</think>" + all.content;
    EXPECT_EQ(kept, text.substr(0, text.find(kEos)));
  }
}

TEST(CompletionParser, WhatElseIsWrongIsSaid) {
  const auto wrong = [](std::string_view text, bool thinking) {
    return std::string(ParseCompletion(text, thinking).status.message());
  };
  EXPECT_THAT(wrong("never closed", true), HasSubstr("</think> is missing"));
  EXPECT_THAT(wrong("ended<｜end▁of▁sentence｜>", true), HasSubstr("</think> is missing"));
  EXPECT_THAT(wrong("a<｜end▁of▁sentence｜>b", false), HasSubstr("behind the turn's end"));
  EXPECT_THAT(wrong("a <｜DSML｜invoke", false), HasSubstr("｜DSML｜ is amid words"));
  EXPECT_EQ(wrong("fine<｜end▁of▁sentence｜>", false), "");
}

// ---- there and back ----

std::string RandomWords(Random& random) {
  std::string words = RandomText(random, random.Next() % 20);
  if (random.Next() % 8 == 0) words += "</think";
  if (random.Next() % 8 == 0) words += "\n\n<";
  return words;
}

ordered_json RandomValue(Random& random) {
  switch (random.Next() % 6) {
    case 0:
      return static_cast<int64_t>(random.Next());
    case 1:
      return static_cast<double>(static_cast<int64_t>(random.Next() % 100000)) / 64.0;
    case 2:
      return ordered_json{{RandomWords(random), nullptr}, {"b", {1, true}}};
    case 3:
      return ordered_json::array();
    default:
      return RandomWords(random);
  }
}

TEST(Chat, WhatIsWrittenIsReadBack) {
  SeededRandom random(11);
  for (int i = 0; i < 2000; ++i) {
    std::vector<Message> messages(2);
    messages[0].content = RandomWords(random);
    Message& answer = messages[1];
    answer.role = Role::kAssistant;
    answer.reasoning = RandomWords(random);
    answer.content = RandomWords(random);
    for (uint64_t calls = random.Next() % 4; calls > 0; --calls) {
      ordered_json arguments = ordered_json::object();
      for (uint64_t n = random.Next() % 4; n > 0; --n) {
        arguments[RandomWords(random)] = RandomValue(random);
      }
      answer.tool_calls.push_back({"", "f" + std::to_string(calls), PythonJson(arguments)});
    }
    ChatOptions options;
    options.mode = random.Next() % 2 == 0 ? ThinkingMode::kNone : ThinkingMode::kHigh;
    const bool thinking = options.mode != ThinkingMode::kNone;
    if (!thinking) answer.reasoning.clear();
    const std::string whole = EncodeChat(messages, options).text;
    const std::string prompt = EncodeChat({messages[0]}, options).text;
    ASSERT_EQ(whole.substr(0, prompt.size()), prompt);
    const Completion back =
        InPieces(std::string_view(whole).substr(prompt.size()), thinking, random);
    EXPECT_TRUE(back.status.ok()) << back.status;
    EXPECT_EQ(back.reasoning, answer.reasoning);
    EXPECT_EQ(back.content, answer.content);
    EXPECT_EQ(back.tool_calls, answer.tool_calls);
  }
}

// Whatever comes in: an error or a result, nothing else (run under the sanitizers).
TEST(Chat, DamagedInputIsRefusedOrRead) {
  SeededRandom random(13);
  const std::string texts[] = {TestFile("chat/case1.json"), TestFile("chat/case2.json")};
  size_t refused = 0;
  for (int i = 0; i < 3000; ++i) {
    std::string text = texts[random.Next() % 2];
    static constexpr std::string_view kBytes = "\"{}[]:,\\0123nulltrue \xFF\xE2-e.";
    for (uint64_t n = 1 + random.Next() % 3; n > 0; --n) {
      text[random.Next() % text.size()] = kBytes[random.Next() % kBytes.size()];
    }
    const absl::StatusOr<ordered_json> json = ParseJson(text, "test");
    const ordered_json messages =
        json.ok() ? (json->is_object() ? json->value("messages", ordered_json()) : *json) : nullptr;
    const absl::StatusOr<std::vector<Message>> read = ParseMessages(messages);
    if (!read.ok()) {
      ++refused;
      EXPECT_EQ(read.status().code(), absl::StatusCode::kInvalidArgument);
      continue;
    }
    const std::string prompt = EncodeChat(*read, {}).text;
    EXPECT_TRUE(IsUtf8(prompt));
    InPieces(prompt, random.Next() % 2 == 0, random);
  }
  EXPECT_GT(refused, 100u);
  EXPECT_LT(refused, 2900u);
}

}  // namespace
}  // namespace cairn::engine
