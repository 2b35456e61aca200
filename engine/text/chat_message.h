// chat_message.h: a conversation in OpenAI's shape, checked.
//
// Threads: values and pure functions.
// Errors:  INVALID_ARGUMENT naming the field: "messages[2].tool_calls[0].function.name: missing".
#ifndef CAIRN_ENGINE_TEXT_CHAT_MESSAGE_H_
#define CAIRN_ENGINE_TEXT_CHAT_MESSAGE_H_

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "store/base/status.h"

namespace cairn::engine {

inline constexpr size_t kMessagesMax = 65536;
inline constexpr size_t kToolsMax = 4096;
inline constexpr size_t kChatBytesMax = size_t{64} << 20;  // of all texts together

enum class Role : uint8_t { kSystem, kDeveloper, kUser, kAssistant, kTool, kLatestReminder };

struct ToolCall {
  std::string id;
  std::string name;
  std::string arguments;  // a JSON object, as text

  bool operator==(const ToolCall&) const = default;
};

struct Message {
  Role role = Role::kUser;
  std::string content;
  std::string reasoning;             // assistant
  std::vector<ToolCall> tool_calls;  // assistant
  std::string tool_call_id;          // tool: which call this answers
  std::vector<std::string> tools;    // system, developer: each function as JSON (json_text.h)
  std::string response_format;       // system, developer: the schema as JSON; empty: none
  std::string task;                  // "action", "title", ...: a quick instruction; empty: none
  bool without_eos = false;          // assistant: to be gone on with
};

// `messages` is the request's array. `tools` (null or absent: nullptr) are the request's: they
// belong to the system message, which is made where the conversation does not begin with one.
// `content` is a string, null (system and assistant only), or an array of parts of type "text",
// which are joined by an empty line. `arguments` is JSON text or the object itself; text that is
// not JSON becomes one argument named "arguments", as in the official encoding.
absl::StatusOr<std::vector<Message>> ParseMessages(const nlohmann::ordered_json& messages,
                                                   const nlohmann::ordered_json* tools = nullptr);

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_TEXT_CHAT_MESSAGE_H_
