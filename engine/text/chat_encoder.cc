#include "engine/text/chat_encoder.h"

#include <algorithm>
#include <map>
#include <optional>

#include "engine/text/dsml.h"
#include "engine/text/marks.h"

namespace cairn::engine {
namespace {

constexpr std::string_view kMaxEffort =
    "Reasoning Effort: Absolute maximum with no shortcuts permitted.\n"
    "You MUST be very thorough in your thinking and comprehensively decompose the problem to "
    "resolve the root cause, rigorously stress-testing your logic against all potential paths, "
    "edge cases, and adversarial scenarios.\n"
    "Explicitly write out your entire deliberation process, documenting every intermediate step, "
    "considered alternative, and rejected hypothesis to ensure absolutely no assumption is left "
    "unchecked.\n\n";

constexpr std::string_view kToolsBefore = R"(

## Tools

You have access to a set of tools to help answer the user's question. You can invoke tools by writing a "<｜DSML｜tool_calls>" block like the following:

<｜DSML｜tool_calls>
<｜DSML｜invoke name="$TOOL_NAME">
<｜DSML｜parameter name="$PARAMETER_NAME" string="true|false">$PARAMETER_VALUE</｜DSML｜parameter>
...
</｜DSML｜invoke>
<｜DSML｜invoke name="$TOOL_NAME2">
...
</｜DSML｜invoke>
</｜DSML｜tool_calls>

String parameters should be specified as is and set `string="true"`. For all other types (numbers, booleans, arrays, objects), pass the value in JSON format and set `string="false"`.

If thinking_mode is enabled (triggered by <think>), you MUST output your complete reasoning inside <think>...</think> BEFORE any tool calls or final response.

Otherwise, output directly after </think> with tool calls or final response.

### Available Tool Schemas

)";
constexpr std::string_view kToolsAfter =
    "\n\nYou MUST strictly follow the above defined tool name and parameter schemas to invoke tool "
    "calls.\n";
constexpr std::string_view kResponseFormat =
    "\n\n## Response Format:\n\nYou MUST strictly adhere to the following schema to reply:\n";

// What a user turn is made of: words, and results of calls.
struct Block {
  std::string_view text;
  std::optional<std::string_view> result_of;  // the call's id
};

// A message as it is rendered: neighbouring user and tool messages are one turn of the user.
struct Turn {
  const Message* message;
  Role role;  // never kTool
  std::string_view task;
  std::vector<Block> blocks;
};

// Results in the order of the calls they answer; one that answers none comes with the first.
void SortResults(const std::vector<ToolCall>& calls, std::vector<Block>& blocks) {
  std::map<std::string_view, size_t> order;
  for (size_t i = 0; i < calls.size(); ++i) {
    if (!calls[i].id.empty()) order[calls[i].id] = i;
  }
  std::vector<Block> results;
  for (const Block& block : blocks) {
    if (block.result_of) results.push_back(block);
  }
  const auto rank = [&](const Block& block) {
    const auto it = order.find(*block.result_of);
    return it == order.end() ? 0 : it->second;
  };
  std::stable_sort(results.begin(), results.end(),
                   [&](const Block& a, const Block& b) { return rank(a) < rank(b); });
  size_t next = 0;
  for (Block& block : blocks) {
    if (block.result_of) block = results[next++];
  }
}

std::vector<Turn> ToTurns(const std::vector<Message>& messages) {
  std::vector<Turn> turns;
  for (const Message& m : messages) {
    const bool result = m.role == Role::kTool;
    if (!result && m.role != Role::kUser) {
      turns.push_back({&m, m.role, m.task, {}});
      continue;
    }
    // A turn with a task is complete, but for results.
    if (turns.empty() || turns.back().role != Role::kUser ||
        (!result && !turns.back().task.empty())) {
      turns.push_back({&m, Role::kUser, {}, {}});
    }
    Turn& turn = turns.back();
    if (!m.task.empty()) turn.task = m.task;
    turn.blocks.push_back({m.content, std::nullopt});
    if (result) turn.blocks.back().result_of = m.tool_call_id;
  }
  const std::vector<ToolCall>* calls = nullptr;
  for (Turn& turn : turns) {
    if (!turn.message->tool_calls.empty()) calls = &turn.message->tool_calls;
    if (calls != nullptr) SortResults(*calls, turn.blocks);
  }
  return turns;
}

class Renderer {
 public:
  Renderer(std::vector<Turn> turns, const ChatOptions& options)
      : turns_(std::move(turns)), thinking_(options.mode != ThinkingMode::kNone) {
    const bool tools = std::any_of(turns_.begin(), turns_.end(),
                                   [](const Turn& t) { return !t.message->tools.empty(); });
    drop_ = thinking_ && options.drop_thinking && !tools;
    // With the reasoning go the developer's turns, which are the search agent's working notes.
    if (drop_) {
      const auto last = turns_.begin() + LastUser();
      if (last > turns_.begin()) {
        const auto kept = std::remove_if(turns_.begin(), last,
                                         [](const Turn& t) { return t.role == Role::kDeveloper; });
        turns_.erase(kept, last);
      }
    }
    last_user_ = LastUser();
    if (options.bos) prompt_.Write(kBos);
    if (options.mode == ThinkingMode::kMax) prompt_.Write(kMaxEffort);
  }

  PromptText Run() {
    for (size_t i = 0; i < turns_.size(); ++i) {
      WriteTurn(i);
      WriteWhatFollows(i);
    }
    return std::move(prompt_);
  }

 private:
  // -1 where nobody has asked.
  std::ptrdiff_t LastUser() const {
    for (std::ptrdiff_t i = std::ssize(turns_) - 1; i >= 0; --i) {
      const Role role = turns_[static_cast<size_t>(i)].role;
      if (role == Role::kUser || role == Role::kDeveloper) return i;
    }
    return -1;
  }

  void WriteTurn(size_t i) {
    const Turn& turn = turns_[i];
    switch (turn.role) {
      case Role::kDeveloper:
        prompt_.Write(kUser);
        [[fallthrough]];
      case Role::kSystem:
        prompt_.WriteLiteral(turn.message->content);
        WriteTools(*turn.message);
        return;
      case Role::kLatestReminder:
        prompt_.Write(kLatestReminder);
        prompt_.WriteLiteral(turn.message->content);
        return;
      case Role::kAssistant:
        return WriteAnswer(i);
      case Role::kUser:
      case Role::kTool:
        return WriteBlocks(turn.blocks);
    }
  }

  void WriteTools(const Message& message) {
    if (!message.tools.empty()) {
      prompt_.Write(kToolsBefore);
      for (size_t i = 0; i < message.tools.size(); ++i) {
        if (i > 0) prompt_.Write("\n");
        prompt_.WriteLiteral(message.tools[i]);
      }
      prompt_.Write(kToolsAfter);
    }
    if (!message.response_format.empty()) {
      prompt_.Write(kResponseFormat);
      prompt_.WriteLiteral(message.response_format);
    }
  }

  void WriteBlocks(const std::vector<Block>& blocks) {
    prompt_.Write(kUser);
    for (size_t i = 0; i < blocks.size(); ++i) {
      if (i > 0) prompt_.Write("\n\n");
      if (blocks[i].result_of) prompt_.Write("<tool_result>");
      prompt_.WriteLiteral(blocks[i].text);
      if (blocks[i].result_of) prompt_.Write("</tool_result>");
    }
  }

  void WriteAnswer(size_t i) {
    const Message& message = *turns_[i].message;
    const bool to_task = i > 0 && !turns_[i - 1].task.empty();
    if (thinking_ && !to_task && (!drop_ || static_cast<std::ptrdiff_t>(i) > last_user_)) {
      prompt_.WriteLiteral(message.reasoning);
      prompt_.Write(kEndThink);
    }
    prompt_.WriteLiteral(message.content);
    if (!message.tool_calls.empty()) WriteToolCalls(message.tool_calls, prompt_);
    if (!message.without_eos) prompt_.Write(kEos);
  }

  // Where an answer comes next, what it begins with.
  void WriteWhatFollows(size_t i) {
    const Turn& turn = turns_[i];
    if (i + 1 < turns_.size() && turns_[i + 1].role != Role::kAssistant &&
        turns_[i + 1].role != Role::kLatestReminder) {
      return;
    }
    const bool action = turn.task == "action";
    if (!turn.task.empty() && !action) return WriteTask(turn.task);
    if (!action && turn.role != Role::kUser && turn.role != Role::kDeveloper) return;
    prompt_.Write(kAssistant);
    const bool open =
        thinking_ && (action || !drop_ || static_cast<std::ptrdiff_t>(i) >= last_user_);
    prompt_.Write(open ? kThink : kEndThink);
    if (action) WriteTask(turn.task);
  }

  void WriteTask(std::string_view task) {
    prompt_.Write("<｜");
    prompt_.Write(task);
    prompt_.Write("｜>");
  }

  std::vector<Turn> turns_;
  bool thinking_;
  bool drop_ = false;
  std::ptrdiff_t last_user_ = -1;
  PromptText prompt_;
};

}  // namespace

PromptText EncodeChat(const std::vector<Message>& messages, const ChatOptions& options) {
  return Renderer(ToTurns(messages), options).Run();
}

}  // namespace cairn::engine
