#include "engine/text/chat_message.h"

#include <algorithm>

#include "engine/text/json_fields.h"
#include "engine/text/json_text.h"

namespace cairn::engine {
namespace {

using nlohmann::ordered_json;

constexpr std::pair<std::string_view, Role> kRoles[] = {
    {"system", Role::kSystem}, {"developer", Role::kDeveloper},
    {"user", Role::kUser},     {"assistant", Role::kAssistant},
    {"tool", Role::kTool},     {"latest_reminder", Role::kLatestReminder},
};
constexpr std::string_view kTasks[] = {"action", "query", "authority",
                                       "domain", "title", "read_url"};

// In an error not as long as a request's author likes.
std::string Quoted(const std::string& text) {
  return absl::StrCat("\"", absl::string_view(text).substr(0, 64), "\"");
}

absl::Status CheckArray(const ordered_json& json, const std::string& path, size_t size_max) {
  if (!json.is_array()) return FieldError(path, "must be an array");
  if (json.size() > size_max) {
    return FieldError(path, absl::StrCat("has ", json.size(), " items; at most ", size_max));
  }
  return absl::OkStatus();
}

class MessageReader {
 public:
  absl::StatusOr<Message> Read(const ordered_json& json, const std::string& path) {
    if (!json.is_object()) return FieldError(path, "must be an object");
    Message m;
    CAIRN_ASSIGN_OR_RETURN(const std::string role, StringField(json, path, "role"));
    const auto* known = std::find_if(std::begin(kRoles), std::end(kRoles),
                                     [&](const auto& r) { return r.first == role; });
    if (known == std::end(kRoles)) {
      return FieldError(Path(path, "role"), absl::StrCat(Quoted(role), " is not a role"));
    }
    m.role = known->second;
    CAIRN_ASSIGN_OR_RETURN(m.content, Content(json, path, m.role));
    CAIRN_ASSIGN_OR_RETURN(m.reasoning, OptionalString(json, path, "reasoning_content"));
    CAIRN_ASSIGN_OR_RETURN(m.tool_call_id, OptionalString(json, path, "tool_call_id"));
    CAIRN_ASSIGN_OR_RETURN(m.without_eos, BoolField(json, path, "wo_eos", false));
    CAIRN_ASSIGN_OR_RETURN(m.task, OptionalString(json, path, "task"));
    if (!m.task.empty() &&
        std::find(std::begin(kTasks), std::end(kTasks), m.task) == std::end(kTasks)) {
      return FieldError(Path(path, "task"), absl::StrCat(Quoted(m.task), " is not a task"));
    }
    if (const ordered_json* tools = FindField(json, "tools")) {
      CAIRN_ASSIGN_OR_RETURN(m.tools, Tools(*tools, Path(path, "tools")));
    }
    if (const ordered_json* format = FindField(json, "response_format")) {
      m.response_format = PythonJson(*format);
      CAIRN_RETURN_IF_ERROR(Count(m.response_format.size(), path));
    }
    if (const ordered_json* calls = FindField(json, "tool_calls")) {
      CAIRN_RETURN_IF_ERROR(CheckArray(*calls, Path(path, "tool_calls"), kToolsMax));
      for (size_t i = 0; i < calls->size(); ++i) {
        CAIRN_ASSIGN_OR_RETURN(ToolCall call, Call((*calls)[i], Path(Path(path, "tool_calls"), i)));
        m.tool_calls.push_back(std::move(call));
      }
    }
    return m;
  }

  // Each tool's function.
  absl::StatusOr<std::vector<std::string>> Tools(const ordered_json& json,
                                                 const std::string& path) {
    CAIRN_RETURN_IF_ERROR(CheckArray(json, path, kToolsMax));
    std::vector<std::string> tools;
    for (size_t i = 0; i < json.size(); ++i) {
      const std::string where = Path(Path(path, i), "function");
      CAIRN_ASSIGN_OR_RETURN(const ordered_json* function, Function(json[i], Path(path, i)));
      CAIRN_RETURN_IF_ERROR(StringField(*function, where, "name").status());
      tools.push_back(PythonJson(*function));
      CAIRN_RETURN_IF_ERROR(Count(tools.back().size(), where));
    }
    return tools;
  }

 private:
  absl::Status Count(size_t bytes, const std::string& path) {
    bytes_ += bytes;
    if (bytes_ <= kChatBytesMax) return absl::OkStatus();
    return FieldError(path, absl::StrCat("the conversation is over ", kChatBytesMax, " bytes"));
  }

  static absl::StatusOr<const ordered_json*> Function(const ordered_json& json,
                                                      const std::string& path) {
    if (!json.is_object()) return FieldError(path, "must be an object");
    const ordered_json* function = FindField(json, "function");
    if (function == nullptr || !function->is_object()) {
      return FieldError(Path(path, "function"), "must be an object");
    }
    return function;
  }

  absl::StatusOr<std::string> OptionalString(const ordered_json& json, const std::string& path,
                                             const char* name) {
    if (FindField(json, name) == nullptr) return std::string();
    CAIRN_ASSIGN_OR_RETURN(std::string text, StringField(json, path, name));
    CAIRN_RETURN_IF_ERROR(Count(text.size(), Path(path, name)));
    return text;
  }

  absl::StatusOr<std::string> Content(const ordered_json& json, const std::string& message,
                                      Role role) {
    const std::string path = Path(message, "content");
    const ordered_json* content = FindField(json, "content");
    if (content == nullptr) {
      if (role == Role::kSystem || role == Role::kAssistant) return std::string();
      return FieldError(path, "missing");
    }
    if (!content->is_array() && !content->is_string()) {
      return FieldError(path, "must be a string or an array of text parts");
    }
    if (content->is_array()) return Parts(*content, path);
    CAIRN_ASSIGN_OR_RETURN(std::string text, OptionalString(json, message, "content"));
    if (text.empty() && role == Role::kDeveloper) return FieldError(path, "must not be empty");
    return text;
  }

  absl::StatusOr<std::string> Parts(const ordered_json& parts, const std::string& path) {
    std::string text;
    for (size_t i = 0; i < parts.size(); ++i) {
      const std::string where = Path(path, i);
      if (!parts[i].is_object()) return FieldError(where, "must be an object");
      CAIRN_ASSIGN_OR_RETURN(const std::string type, StringField(parts[i], where, "type"));
      if (type != "text") {
        return FieldError(Path(where, "type"),
                          absl::StrCat(Quoted(type), " is not supported: only text is"));
      }
      CAIRN_ASSIGN_OR_RETURN(const std::string part, StringField(parts[i], where, "text"));
      CAIRN_RETURN_IF_ERROR(Count(part.size() + 2, where));
      absl::StrAppend(&text, i > 0 ? "\n\n" : "", part);
    }
    return text;
  }

  absl::StatusOr<ToolCall> Call(const ordered_json& json, const std::string& path) {
    CAIRN_ASSIGN_OR_RETURN(const ordered_json* function, Function(json, path));
    const std::string where = Path(path, "function");
    ToolCall call;
    CAIRN_ASSIGN_OR_RETURN(call.id, OptionalString(json, path, "id"));
    CAIRN_ASSIGN_OR_RETURN(call.name, StringField(*function, where, "name"));
    if (call.name.empty()) return FieldError(Path(where, "name"), "must not be empty");
    CAIRN_ASSIGN_OR_RETURN(call.arguments, Arguments(*function, where));
    CAIRN_RETURN_IF_ERROR(Count(call.name.size() + call.arguments.size(), where));
    return call;
  }

  static absl::StatusOr<std::string> Arguments(const ordered_json& function,
                                               const std::string& where) {
    const std::string path = Path(where, "arguments");
    const ordered_json* given = FindField(function, "arguments");
    if (given == nullptr) return FieldError(path, "missing");
    if (given->is_object()) return PythonJson(*given);
    if (!given->is_string()) return FieldError(path, "must be JSON text or an object");
    const std::string& text = given->get_ref<const std::string&>();
    if (!ordered_json::accept(text)) return PythonJson({{"arguments", text}});
    CAIRN_ASSIGN_OR_RETURN(const ordered_json value, ParseJson(text, path));
    if (!value.is_object()) return FieldError(path, "must be a JSON object");
    return PythonJson(value);
  }

  size_t bytes_ = 0;
};

}  // namespace

absl::StatusOr<std::vector<Message>> ParseMessages(const ordered_json& messages,
                                                   const ordered_json* tools) {
  CAIRN_RETURN_IF_ERROR(CheckArray(messages, "messages", kMessagesMax));
  if (messages.empty()) return FieldError("messages", "must not be empty");
  MessageReader reader;
  std::vector<Message> read;
  for (size_t i = 0; i < messages.size(); ++i) {
    CAIRN_ASSIGN_OR_RETURN(Message message, reader.Read(messages[i], Path("messages", i)));
    read.push_back(std::move(message));
  }
  if (tools == nullptr || tools->is_null()) return read;
  CAIRN_ASSIGN_OR_RETURN(std::vector<std::string> functions, reader.Tools(*tools, "tools"));
  if (functions.empty()) return read;
  if (read[0].role != Role::kSystem) {
    read.insert(read.begin(), Message());
    read[0].role = Role::kSystem;
  }
  if (!read[0].tools.empty()) return FieldError("tools", "messages[0].tools is given, too");
  read[0].tools = std::move(functions);
  return read;
}

}  // namespace cairn::engine
