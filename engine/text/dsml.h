// dsml.h: tool calls in DeepSeek's markup, written and read.
//
//   <｜DSML｜tool_calls>
//   <｜DSML｜invoke name="NAME">
//   <｜DSML｜parameter name="KEY" string="true">the text itself</｜DSML｜parameter>
//   <｜DSML｜parameter name="KEY" string="false">JSON</｜DSML｜parameter>
//   </｜DSML｜invoke>
//   </｜DSML｜tool_calls>
//
// Nothing is escaped, so a value that holds a closing tag cannot be told from its end; it is
// written as it is, as the official encoding does.
//
// Threads: pure. Errors: ReadToolCalls INVALID_ARGUMENT naming what was expected and what came.
#ifndef CAIRN_ENGINE_TEXT_DSML_H_
#define CAIRN_ENGINE_TEXT_DSML_H_

#include <string_view>
#include <vector>

#include "engine/text/chat_message.h"
#include "engine/text/prompt_text.h"

namespace cairn::engine {

// What a block of calls begins with in an answer; its first line ends with ">\n".
inline constexpr std::string_view kToolCallsStart = "\n\n<｜DSML｜tool_calls";

// Appends the block with the two newlines before it. REQUIRES: arguments are JSON objects, as
// ParseMessages and ReadToolCalls give them.
void WriteToolCalls(const std::vector<ToolCall>& calls, PromptText& prompt);

// Reads what follows kToolCallsStart, to the end of the block and of the text. Calls have no ids.
absl::StatusOr<std::vector<ToolCall>> ReadToolCalls(std::string_view block);

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_TEXT_DSML_H_
