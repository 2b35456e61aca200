#include "engine/serve/api_request.h"

#include <charconv>
#include <nlohmann/json.hpp>
#include <utility>

#include "engine/text/json_fields.h"
#include "engine/text/json_text.h"

namespace cairn::engine {
namespace {

using nlohmann::ordered_json;

// Known to clients of OpenAI or vLLM, and not offered.
constexpr const char* kNotOffered[] = {
    "audio",          "prediction",         "web_search_options", "functions",
    "function_call",  "guided_json",        "guided_regex",       "guided_choice",
    "guided_grammar", "structured_outputs", "prompt_logprobs",    "use_beam_search",
    "min_tokens",     "bad_words",          "allowed_token_ids",  "suffix"};

absl::StatusOr<double> Number(const ordered_json& body, const char* name, double otherwise) {
  const ordered_json* field = FindField(body, name);
  if (field == nullptr) return otherwise;
  if (!field->is_number()) return FieldError(name, "must be a number");
  return field->get<double>();
}

absl::StatusOr<int64_t> ToInteger(const ordered_json& value, const std::string& path) {
  if (value.is_number_unsigned() && value.get<uint64_t>() > INT64_MAX) {
    return FieldError(path, "is too large");
  }
  if (!value.is_number_integer()) return FieldError(path, "must be an integer");
  return value.get<int64_t>();
}

absl::StatusOr<std::optional<int64_t>> Integer(const ordered_json& body, const char* name) {
  const ordered_json* field = FindField(body, name);
  if (field == nullptr) return std::nullopt;
  CAIRN_ASSIGN_OR_RETURN(const int64_t value, ToInteger(*field, name));
  return value;
}

absl::StatusOr<int32_t> ToToken(const ordered_json& value, const std::string& path, int64_t vocab) {
  CAIRN_ASSIGN_OR_RETURN(const int64_t token, ToInteger(value, path));
  if (token < 0 || token >= vocab) {
    return FieldError(path, absl::StrCat(token, " is outside of the vocabulary of ", vocab));
  }
  return static_cast<int32_t>(token);
}

absl::Status CheckOffered(const ordered_json& body) {
  for (const char* name : kNotOffered) {
    if (FindField(body, name) != nullptr) return FieldError(name, "is not supported");
  }
  for (const char* name : {"n", "best_of"}) {
    CAIRN_ASSIGN_OR_RETURN(const std::optional<int64_t> count, Integer(body, name));
    if (count.value_or(1) != 1) return FieldError(name, "only 1 is supported");
  }
  CAIRN_ASSIGN_OR_RETURN(const bool echo, BoolField(body, "", "echo", false));
  if (echo) return FieldError("echo", "is not supported");
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::pair<int32_t, double>>> LogitBias(const ordered_json& body,
                                                                  int64_t vocab) {
  std::vector<std::pair<int32_t, double>> biases;
  const ordered_json* field = FindField(body, "logit_bias");
  if (field == nullptr) return biases;
  if (!field->is_object()) {
    return FieldError("logit_bias", "must be an object of token ids and numbers");
  }
  for (const auto& [key, value] : field->items()) {
    int32_t token = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), token);
    if (error != std::errc() || end != key.data() + key.size() || token < 0 || token >= vocab) {
      return FieldError("logit_bias", absl::StrCat("has a key that is no token id below ", vocab));
    }
    if (!value.is_number()) {
      return FieldError("logit_bias", absl::StrCat("of token ", token, " must be a number"));
    }
    biases.emplace_back(token, value.get<double>());
  }
  return biases;
}

absl::Status ReadSampling(const ordered_json& body, const ServedModel& model, ApiRequest& request) {
  SamplingParams& p = request.sampling;
  for (const auto& [name, value] : {std::pair{"temperature", &p.temperature},
                                    {"top_p", &p.top_p},
                                    {"min_p", &p.min_p},
                                    {"presence_penalty", &p.presence_penalty},
                                    {"frequency_penalty", &p.frequency_penalty},
                                    {"repetition_penalty", &p.repetition_penalty}}) {
    CAIRN_ASSIGN_OR_RETURN(*value, Number(body, name, *value));
  }
  CAIRN_ASSIGN_OR_RETURN(const std::optional<int64_t> top_k, Integer(body, "top_k"));
  p.top_k = top_k.value_or(0) == -1 ? 0 : top_k.value_or(0);
  CAIRN_ASSIGN_OR_RETURN(const std::optional<int64_t> seed, Integer(body, "seed"));
  if (seed.has_value()) request.seed = static_cast<uint64_t>(*seed);
  CAIRN_ASSIGN_OR_RETURN(p.logit_bias, LogitBias(body, model.vocab));
  return CheckSampling(p, model.vocab);
}

absl::Status ReadStops(const ordered_json& body, const ServedModel& model, ApiRequest& request) {
  const auto add = [&](const ordered_json& text, const std::string& path) -> absl::Status {
    if (!text.is_string()) return FieldError(path, "must be a string");
    request.stop.push_back(text.get<std::string>());
    if (request.stop.back().empty()) return FieldError(path, "must not be empty");
    if (request.stop.back().size() > kStopBytesMax) {
      return FieldError(path, absl::StrCat("has ", request.stop.back().size(), " bytes; at most ",
                                           kStopBytesMax));
    }
    return absl::OkStatus();
  };
  if (const ordered_json* stop = FindField(body, "stop"); stop != nullptr && stop->is_array()) {
    if (stop->size() > kStopsMax) {
      return FieldError("stop", absl::StrCat("has ", stop->size(), " texts; at most ", kStopsMax));
    }
    for (size_t i = 0; i < stop->size(); ++i) {
      CAIRN_RETURN_IF_ERROR(add((*stop)[i], Path("stop", i)));
    }
  } else if (stop != nullptr) {
    if (!stop->is_string()) return FieldError("stop", "must be a string or an array of strings");
    CAIRN_RETURN_IF_ERROR(add(*stop, "stop"));
  }
  const ordered_json* tokens = FindField(body, "stop_token_ids");
  if (tokens == nullptr) return absl::OkStatus();
  if (!tokens->is_array()) return FieldError("stop_token_ids", "must be an array of token ids");
  if (tokens->size() > kStopTokensMax) {
    return FieldError("stop_token_ids",
                      absl::StrCat("has ", tokens->size(), " ids; at most ", kStopTokensMax));
  }
  for (size_t i = 0; i < tokens->size(); ++i) {
    CAIRN_ASSIGN_OR_RETURN(const int32_t token,
                           ToToken((*tokens)[i], Path("stop_token_ids", i), model.vocab));
    request.stop_tokens.push_back(token);
  }
  return absl::OkStatus();
}

absl::Status ReadStream(const ordered_json& body, ApiRequest& request) {
  CAIRN_ASSIGN_OR_RETURN(request.stream, BoolField(body, "", "stream", false));
  const ordered_json* options = FindField(body, "stream_options");
  if (options == nullptr) return absl::OkStatus();
  if (!options->is_object()) return FieldError("stream_options", "must be an object");
  if (!request.stream) return FieldError("stream_options", "is for streams; set \"stream\"");
  CAIRN_ASSIGN_OR_RETURN(request.include_usage,
                         BoolField(*options, "stream_options", "include_usage", false));
  return absl::OkStatus();
}

// Everything but the prompt.
absl::StatusOr<ordered_json> ReadShared(std::string_view text, const ServedModel& model,
                                        ApiRequest& request) {
  CAIRN_ASSIGN_OR_RETURN(ordered_json body, ParseJson(text, "body"));
  if (!body.is_object()) return FieldError("body", "must be a JSON object");
  CAIRN_ASSIGN_OR_RETURN(const std::string name, StringField(body, "", "model"));
  if (name != model.name) {
    return absl::NotFoundError(absl::StrCat("model: \"", name.substr(0, 128),
                                            "\" is not served here; \"", model.name, "\" is"));
  }
  CAIRN_RETURN_IF_ERROR(CheckOffered(body));
  CAIRN_RETURN_IF_ERROR(ReadSampling(body, model, request));
  CAIRN_RETURN_IF_ERROR(ReadStops(body, model, request));
  CAIRN_RETURN_IF_ERROR(ReadStream(body, request));
  CAIRN_ASSIGN_OR_RETURN(request.ignore_eos, BoolField(body, "", "ignore_eos", false));
  CAIRN_ASSIGN_OR_RETURN(request.max_tokens, Integer(body, "max_tokens"));
  CAIRN_ASSIGN_OR_RETURN(const std::optional<int64_t> newer,
                         Integer(body, "max_completion_tokens"));
  if (newer.has_value()) request.max_tokens = newer;
  if (request.max_tokens.value_or(1) < 1) return FieldError("max_tokens", "must be at least 1");
  return body;
}

absl::Status ReadTopLogprobs(const ordered_json& body, const char* name, ApiRequest& request) {
  CAIRN_ASSIGN_OR_RETURN(const std::optional<int64_t> count, Integer(body, name));
  if (!count.has_value()) return absl::OkStatus();
  if (*count < 0 || *count > kTopLogprobsMax) {
    return FieldError(name, absl::StrCat(*count, " is not between 0 and ", kTopLogprobsMax));
  }
  request.sampling.top_logprobs = static_cast<int>(*count);
  return absl::OkStatus();
}

// A text, an array of token ids, or an array of just one of these.
absl::Status ReadPrompt(const ordered_json& body, const ServedModel& model,
                        CompletionRequest& request) {
  const ordered_json* prompt = FindField(body, "prompt");
  if (prompt == nullptr) return FieldError("prompt", "missing");
  if (prompt->is_array() && !prompt->empty() && !prompt->front().is_number()) {
    if (prompt->size() > 1) return FieldError("prompt", "only one prompt a request is supported");
    prompt = &prompt->front();
  }
  if (prompt->is_string()) {
    request.prompt = prompt->get<std::string>();
    return absl::OkStatus();
  }
  if (!prompt->is_array() || prompt->empty()) {
    return FieldError("prompt", "must be a text, or an array of token ids, and not empty");
  }
  for (size_t i = 0; i < prompt->size(); ++i) {
    CAIRN_ASSIGN_OR_RETURN(const int32_t token,
                           ToToken((*prompt)[i], Path("prompt", i), model.vocab));
    request.tokens.push_back(token);
  }
  return absl::OkStatus();
}

// thinking: {"type": "enabled" | "disabled"}; reasoning_effort: how much, or "none".
absl::StatusOr<ThinkingMode> ReadThinking(const ordered_json& body) {
  bool enabled = true;
  const ordered_json* thinking = FindField(body, "thinking");
  if (thinking != nullptr) {
    if (!thinking->is_object()) return FieldError("thinking", "must be an object");
    CAIRN_ASSIGN_OR_RETURN(const std::string type, StringField(*thinking, "thinking", "type"));
    if (type != "enabled" && type != "disabled") {
      return FieldError("thinking.type", "must be \"enabled\" or \"disabled\"");
    }
    enabled = type == "enabled";
  }
  if (FindField(body, "reasoning_effort") == nullptr) {
    return enabled ? ThinkingMode::kHigh : ThinkingMode::kNone;
  }
  CAIRN_ASSIGN_OR_RETURN(const std::string effort, StringField(body, "", "reasoning_effort"));
  // DeepSeek's API knows two efforts, and takes the others' names for the nearer one.
  static constexpr std::pair<std::string_view, ThinkingMode> kEfforts[] = {
      {"none", ThinkingMode::kNone}, {"minimal", ThinkingMode::kHigh},
      {"low", ThinkingMode::kHigh},  {"medium", ThinkingMode::kHigh},
      {"high", ThinkingMode::kHigh}, {"xhigh", ThinkingMode::kMax},
      {"max", ThinkingMode::kMax},
  };
  for (const auto& [name, mode] : kEfforts) {
    if (name != effort) continue;
    if (thinking != nullptr && enabled && mode == ThinkingMode::kNone) {
      return FieldError("reasoning_effort", "is \"none\", and thinking is enabled");
    }
    return enabled ? mode : ThinkingMode::kNone;
  }
  return FieldError("reasoning_effort", "must be none, minimal, low, medium, high, xhigh or max");
}

// Whether the tools of the request are shown to the model.
absl::StatusOr<bool> ReadToolChoice(const ordered_json& body) {
  CAIRN_ASSIGN_OR_RETURN(const bool parallel, BoolField(body, "", "parallel_tool_calls", true));
  if (!parallel) return FieldError("parallel_tool_calls", "only true is supported");
  const ordered_json* choice = FindField(body, "tool_choice");
  if (choice == nullptr) return true;
  if (!choice->is_string() || (*choice != "auto" && *choice != "none")) {
    return FieldError("tool_choice", "only \"none\" and \"auto\" are supported");
  }
  return *choice == "auto";
}

absl::Status CheckResponseFormat(const ordered_json& body) {
  const ordered_json* format = FindField(body, "response_format");
  if (format == nullptr) return absl::OkStatus();
  if (!format->is_object()) return FieldError("response_format", "must be an object");
  CAIRN_ASSIGN_OR_RETURN(const std::string type, StringField(*format, "response_format", "type"));
  if (type == "text") return absl::OkStatus();
  return FieldError("response_format.type", "only \"text\" is supported");
}

}  // namespace

absl::StatusOr<CompletionRequest> ParseCompletionRequest(std::string_view body,
                                                         const ServedModel& model) {
  CompletionRequest request;
  CAIRN_ASSIGN_OR_RETURN(const ordered_json json, ReadShared(body, model, request));
  CAIRN_RETURN_IF_ERROR(ReadTopLogprobs(json, "logprobs", request));
  CAIRN_RETURN_IF_ERROR(ReadPrompt(json, model, request));
  CAIRN_ASSIGN_OR_RETURN(request.add_bos, BoolField(json, "", "add_special_tokens", true));
  return request;
}

absl::StatusOr<ChatRequest> ParseChatRequest(std::string_view body, const ServedModel& model) {
  ChatRequest request;
  CAIRN_ASSIGN_OR_RETURN(const ordered_json json, ReadShared(body, model, request));
  CAIRN_RETURN_IF_ERROR(CheckResponseFormat(json));
  CAIRN_ASSIGN_OR_RETURN(const bool logprobs, BoolField(json, "", "logprobs", false));
  if (logprobs) request.sampling.top_logprobs = 0;
  if (!logprobs && FindField(json, "top_logprobs") != nullptr) {
    return FieldError("top_logprobs", "needs \"logprobs\" to be true");
  }
  CAIRN_RETURN_IF_ERROR(ReadTopLogprobs(json, "top_logprobs", request));
  CAIRN_ASSIGN_OR_RETURN(request.chat.mode, ReadThinking(json));
  CAIRN_ASSIGN_OR_RETURN(const bool show_tools, ReadToolChoice(json));
  const ordered_json* messages = FindField(json, "messages");
  if (messages == nullptr) return FieldError("messages", "missing");
  CAIRN_ASSIGN_OR_RETURN(request.messages,
                         ParseMessages(*messages, show_tools ? FindField(json, "tools") : nullptr));
  const Message& last = request.messages.back();
  if (last.role == Role::kAssistant && !last.without_eos) {
    return FieldError(Path("messages", messages->size() - 1),
                      "the last message is an answer already; to be gone on with, it needs "
                      "\"wo_eos\": true");
  }
  return request;
}

}  // namespace cairn::engine
