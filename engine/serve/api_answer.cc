#include "engine/serve/api_answer.h"

#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "engine/text/completion_parser.h"
#include "engine/text/utf8.h"

namespace cairn::engine {
namespace {

using nlohmann::ordered_json;

std::string Text(const ordered_json& json) {
  return json.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

ordered_json Usage(const Output& output) {
  return {{"prompt_tokens", output.prompt_tokens},
          {"completion_tokens", output.answer_tokens},
          {"total_tokens", output.prompt_tokens + output.answer_tokens},
          {"prompt_tokens_details", {{"cached_tokens", output.cached_tokens}}},
          {"prompt_cache_hit_tokens", output.cached_tokens},
          {"prompt_cache_miss_tokens", output.prompt_tokens - output.cached_tokens}};
}

const char* ReasonName(FinishReason reason) {
  return reason == FinishReason::kLength ? "length" : "stop";
}

// What the two kinds share: the frame around a choice, and usage at the end.
class FramedAnswer : public ApiAnswer {
 public:
  FramedAnswer(AnswerHead head, const Tokenizer& tokenizer, const char* whole_object,
               const char* event_object)
      : head_(std::move(head)),
        tokenizer_(tokenizer),
        whole_object_(whole_object),
        event_object_(event_object) {}

 protected:
  std::string TokenText(int32_t token) const { return tokenizer_.Bytes(token); }

  ordered_json Frame(const char* object) const {
    return {
        {"id", head_.id}, {"object", object}, {"created", head_.created}, {"model", head_.model}};
  }
  std::string Event(ordered_json choices) const {
    ordered_json event = Frame(event_object_);
    event["choices"] = std::move(choices);
    if (head_.include_usage) event["usage"] = nullptr;
    return Text(event);
  }
  // Notes the end, and adds the event with the usage where one is wanted.
  void End(const Output& output, std::vector<std::string>& events) {
    usage_ = Usage(output);
    if (!head_.include_usage) return;
    ordered_json event = Frame(event_object_);
    event["choices"] = ordered_json::array();
    event["usage"] = usage_;
    events.push_back(Text(event));
  }
  std::string WholeOf(ordered_json choice) const {
    ordered_json whole = Frame(whole_object_);
    whole["choices"] = ordered_json::array({std::move(choice)});
    whole["usage"] = usage_;
    return Text(whole);
  }

  const AnswerHead head_;

 private:
  const Tokenizer& tokenizer_;
  const char* const whole_object_;
  const char* const event_object_;
  ordered_json usage_;
};

// ---- /v1/completions ----

struct TextLogprobs {
  ordered_json tokens = ordered_json::array(), token_logprobs = ordered_json::array(),
               top_logprobs = ordered_json::array(), text_offset = ordered_json::array();

  ordered_json Take() {
    ordered_json taken = {{"tokens", std::move(tokens)},
                          {"token_logprobs", std::move(token_logprobs)},
                          {"top_logprobs", std::move(top_logprobs)},
                          {"text_offset", std::move(text_offset)}};
    *this = TextLogprobs();
    return taken;
  }
};

class CompletionAnswer final : public FramedAnswer {
 public:
  CompletionAnswer(AnswerHead head, const Tokenizer& tokenizer)
      : FramedAnswer(std::move(head), tokenizer, "text_completion", "text_completion") {}

  std::vector<std::string> Add(const Output& output) override {
    for (const SampledToken& token : output.tokens) {
      AddLogprob(token, fresh_);
      AddLogprob(token, all_);
      offset_ += Characters(TokenText(token.token));
    }
    text_ += output.text;
    std::vector<std::string> events;
    if (output.finish.has_value()) finish_ = ReasonName(*output.finish);
    if (!output.text.empty() || output.finish.has_value()) {
      events.push_back(Event(ordered_json::array({Choice(output.text, fresh_)})));
    }
    if (output.finish.has_value()) End(output, events);
    return events;
  }

  std::string Whole() const override {
    TextLogprobs all = all_;
    return WholeOf(Choice(text_, all));
  }

 private:
  static int64_t Characters(const std::string& bytes) {
    const std::string text = ReplaceBrokenUtf8(bytes);
    int64_t count = 0;
    for (size_t at = 0; at < text.size(); ++count) NextCodePoint(text, at);
    return count;
  }

  void AddLogprob(const SampledToken& token, TextLogprobs& to) const {
    if (!head_.logprobs) return;
    const std::string text = TokenText(token.token);
    to.tokens.push_back(text);
    to.token_logprobs.push_back(token.logprob);
    ordered_json top = ordered_json::object();
    for (const TokenLogprob& each : token.top) top[TokenText(each.token)] = each.logprob;
    top[text] = token.logprob;
    to.top_logprobs.push_back(std::move(top));
    to.text_offset.push_back(offset_);
  }

  ordered_json Choice(const std::string& text, TextLogprobs& logprobs) const {
    return {{"text", text},
            {"index", 0},
            {"logprobs", head_.logprobs ? logprobs.Take() : ordered_json()},
            {"finish_reason", finish_}};
  }

  std::string text_;
  TextLogprobs fresh_;  // not in an event yet
  TextLogprobs all_;
  int64_t offset_ = 0;
  ordered_json finish_;
};

// ---- /v1/chat/completions ----

class ChatAnswer final : public FramedAnswer {
 public:
  ChatAnswer(AnswerHead head, const Tokenizer& tokenizer, bool thinking)
      : FramedAnswer(std::move(head), tokenizer, "chat.completion", "chat.completion.chunk"),
        parser_(thinking) {}

  std::vector<std::string> Add(const Output& output) override {
    for (const SampledToken& token : output.tokens) AddLogprob(token);
    CompletionDelta delta = parser_.Feed(output.text);
    std::vector<std::string> events;
    if (!std::exchange(begun_, true)) {
      events.push_back(Delta({{"role", "assistant"}, {"content", ""}}));
    }
    if (!output.finish.has_value()) {
      AddWords(delta, events);
      return events;
    }
    CompletionEnd end = parser_.Finish();
    delta.reasoning += end.last.reasoning;
    delta.content += end.last.content;
    AddWords(delta, events);
    for (size_t i = 0; i < end.tool_calls.size(); ++i) {
      calls_.push_back(Call(end.tool_calls[i], i));
      ordered_json call = {{"index", i}};
      call.update(calls_.back());
      events.push_back(Delta({{"tool_calls", ordered_json::array({std::move(call)})}}));
    }
    finish_ = calls_.empty() ? ReasonName(*output.finish) : "tool_calls";
    events.push_back(Delta(ordered_json::object()));
    End(output, events);
    return events;
  }

  std::string Whole() const override {
    ordered_json message = {{"role", "assistant"}};
    message["content"] =
        content_.empty() && !calls_.empty() ? ordered_json() : ordered_json(content_);
    if (!reasoning_.empty()) message["reasoning_content"] = reasoning_;
    if (!calls_.empty()) message["tool_calls"] = calls_;
    return WholeOf({{"index", 0},
                    {"message", std::move(message)},
                    {"logprobs", head_.logprobs ? Logprobs(all_) : ordered_json()},
                    {"finish_reason", finish_}});
  }

 private:
  static ordered_json Logprobs(ordered_json tokens) {
    return {{"content", std::move(tokens)}, {"refusal", nullptr}};
  }

  ordered_json Logprob(int32_t token, double logprob) const {
    const std::string text = TokenText(token);
    ordered_json bytes = ordered_json::array();
    for (const char byte : text) bytes.push_back(static_cast<uint8_t>(byte));
    return {{"token", text}, {"logprob", logprob}, {"bytes", std::move(bytes)}};
  }

  void AddLogprob(const SampledToken& token) {
    if (!head_.logprobs) return;
    ordered_json entry = Logprob(token.token, token.logprob);
    entry["top_logprobs"] = ordered_json::array();
    for (const TokenLogprob& each : token.top) {
      entry["top_logprobs"].push_back(Logprob(each.token, each.logprob));
    }
    all_.push_back(entry);
    fresh_.push_back(std::move(entry));
  }

  void AddWords(const CompletionDelta& delta, std::vector<std::string>& events) {
    reasoning_ += delta.reasoning;
    content_ += delta.content;
    if (!delta.reasoning.empty()) events.push_back(Delta({{"reasoning_content", delta.reasoning}}));
    if (!delta.content.empty()) events.push_back(Delta({{"content", delta.content}}));
  }

  std::string Delta(ordered_json delta) {
    ordered_json logprobs;
    if (!fresh_.empty()) logprobs = Logprobs(std::exchange(fresh_, ordered_json::array()));
    return Event(ordered_json::array({{{"index", 0},
                                       {"delta", std::move(delta)},
                                       {"logprobs", std::move(logprobs)},
                                       {"finish_reason", finish_}}}));
  }

  ordered_json Call(const ToolCall& call, size_t index) const {
    return {{"id", absl::StrCat("call_", head_.id.substr(head_.id.rfind('-') + 1), "_", index)},
            {"type", "function"},
            {"function", {{"name", call.name}, {"arguments", call.arguments}}}};
  }

  CompletionParser parser_;
  bool begun_ = false;
  std::string reasoning_, content_;
  ordered_json calls_ = ordered_json::array();
  ordered_json fresh_ = ordered_json::array();  // logprobs that are not in an event yet
  ordered_json all_ = ordered_json::array();
  ordered_json finish_;
};

}  // namespace

std::unique_ptr<ApiAnswer> MakeCompletionAnswer(AnswerHead head, const Tokenizer& tokenizer) {
  return std::make_unique<CompletionAnswer>(std::move(head), tokenizer);
}

std::unique_ptr<ApiAnswer> MakeChatAnswer(AnswerHead head, const Tokenizer& tokenizer,
                                          bool thinking) {
  return std::make_unique<ChatAnswer>(std::move(head), tokenizer, thinking);
}

}  // namespace cairn::engine
