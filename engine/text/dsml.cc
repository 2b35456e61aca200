#include "engine/text/dsml.h"

#include <algorithm>
#include <set>

#include "engine/text/json_text.h"

namespace cairn::engine {
namespace {

using nlohmann::ordered_json;

constexpr std::string_view kInvoke = "<｜DSML｜invoke";
constexpr std::string_view kInvokeEnd = "</｜DSML｜invoke>";
constexpr std::string_view kParameter = "<｜DSML｜parameter";
constexpr std::string_view kParameterEnd = "</｜DSML｜parameter>";
constexpr std::string_view kBlockEnd = "</｜DSML｜tool_calls>";

// A cursor over the block. The first thing that is not as it must be is kept as the error; after
// it nothing is taken.
class Reader {
 public:
  explicit Reader(std::string_view block) : rest_(block) {}

  absl::StatusOr<std::vector<ToolCall>> Read() {
    std::vector<ToolCall> calls;
    Expect(">\n");
    while (Take(kInvoke)) {
      calls.push_back(Call());
      Expect("\n");
    }
    Expect(kBlockEnd);
    if (status_.ok() && !rest_.empty()) Fail("the end");
    CAIRN_RETURN_IF_ERROR(status_);
    return calls;
  }

 private:
  bool Take(std::string_view text) {
    if (!status_.ok() || rest_.substr(0, text.size()) != text) return false;
    rest_.remove_prefix(text.size());
    return true;
  }
  void Expect(std::string_view text) {
    if (status_.ok() && !Take(text)) Fail(text);
  }
  void Fail(std::string_view expected) {
    if (!status_.ok()) return;
    status_ = absl::InvalidArgumentError(
        absl::StrCat("tool calls: expected ", PythonJson(std::string(expected)), ", not ",
                     PythonJson(ReplaceBrokenUtf8(rest_.substr(0, 40)))));
  }
  // The text before `end`, which is taken, too.
  std::string Until(std::string_view end) {
    const size_t at = rest_.find(end);
    if (!status_.ok() || at == std::string_view::npos) {
      Fail(end);
      return "";
    }
    std::string text(rest_.substr(0, at));
    rest_.remove_prefix(at + end.size());
    return text;
  }

  ToolCall Call() {
    ToolCall call;
    Expect(" name=\"");
    call.name = Until("\">\n");
    std::string arguments;
    std::set<std::string> names;
    while (Take(kParameter)) {
      Expect(" name=\"");
      Parameter(names, arguments);
      Expect("\n");
    }
    // A call without parameters has an empty line in their place.
    if (names.empty()) Take("\n");
    Expect(kInvokeEnd);
    call.arguments = absl::StrCat("{", arguments, "}");
    return call;
  }

  void Parameter(std::set<std::string>& names, std::string& arguments) {
    constexpr std::string_view kString = "\" string=\"true\">", kJson = "\" string=\"false\">";
    const std::string_view before = rest_;
    const std::string all = Until(kParameterEnd);
    const size_t at = std::min(all.find(kString), all.find(kJson));
    if (status_.ok() && at == std::string::npos) {
      rest_ = before;
      Fail(kString);
    }
    if (!status_.ok()) return;
    const bool is_string = all.compare(at, kString.size(), kString) == 0;
    const std::string name = all.substr(0, at);
    std::string value = all.substr(at + (is_string ? kString : kJson).size());
    if (!names.insert(name).second) {
      status_ = absl::InvalidArgumentError(
          absl::StrCat("tool calls: the parameter ", PythonJson(name), " is there twice"));
    } else if (is_string) {
      value = PythonJson(value);
    } else if (!ordered_json::accept(value)) {
      rest_ = before;
      Fail("a value in JSON");
    }
    absl::StrAppend(&arguments, names.size() > 1 ? ", " : "", PythonJson(name), ": ", value);
  }

  std::string_view rest_;
  absl::Status status_;
};

}  // namespace

void WriteToolCalls(const std::vector<ToolCall>& calls, PromptText& prompt) {
  prompt.Write(kToolCallsStart);
  prompt.Write(">\n");
  for (const ToolCall& call : calls) {
    prompt.Write(kInvoke);
    prompt.Write(" name=\"");
    prompt.WriteLiteral(call.name);
    prompt.Write("\">\n");
    const ordered_json arguments = ordered_json::parse(call.arguments, nullptr, false);
    for (const auto& item : arguments.items()) {
      const bool is_string = item.value().is_string();
      prompt.Write(kParameter);
      prompt.Write(" name=\"");
      prompt.WriteLiteral(item.key());
      prompt.Write(is_string ? "\" string=\"true\">" : "\" string=\"false\">");
      prompt.WriteLiteral(is_string ? item.value().get<std::string>() : PythonJson(item.value()));
      prompt.Write(kParameterEnd);
      prompt.Write("\n");
    }
    if (arguments.empty()) prompt.Write("\n");
    prompt.Write(kInvokeEnd);
    prompt.Write("\n");
  }
  prompt.Write(kBlockEnd);
}

absl::StatusOr<std::vector<ToolCall>> ReadToolCalls(std::string_view block) {
  if (!IsUtf8(block)) return absl::InvalidArgumentError("tool calls: not UTF-8");
  return Reader(block).Read();
}

}  // namespace cairn::engine
