// completion_parser.h: an answer, as it arrives, into reasoning, content and tool calls.
//
// Feed takes text in pieces, cut anywhere; what it returns, joined, does not depend on the cuts.
// Text is held back while it could be the beginning of a mark. Tool calls are read at the end, all
// or none of them: a client must not act on the first call of a block whose second is broken. A
// block that is broken, or cut off, is content, and the status says what was wrong with it.
//
// Threads: one at a time.
// Errors:  in CompletionEnd::status; the text of the answer is never lost to one.
#ifndef CAIRN_ENGINE_TEXT_COMPLETION_PARSER_H_
#define CAIRN_ENGINE_TEXT_COMPLETION_PARSER_H_

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/chat_message.h"

namespace cairn::engine {

struct CompletionDelta {
  std::string reasoning, content;
};

struct CompletionEnd {
  CompletionDelta last;
  std::vector<ToolCall> tool_calls;  // without ids
  // INVALID_ARGUMENT: reasoning without its end (the answer was cut, or the model lost its way),
  // broken tool calls, a mark amid words, text behind the end of the turn (which is dropped).
  absl::Status status;
};

class CompletionParser {
 public:
  // `thinking`: the prompt ended with <think>; else with </think>.
  explicit CompletionParser(bool thinking)
      : state_(thinking ? State::kReasoning : State::kContent) {}

  CompletionDelta Feed(std::string_view text);
  CompletionEnd Finish();

 private:
  enum class State : uint8_t { kReasoning, kContent, kToolCalls, kEnded };

  void GiveOut(size_t bytes, CompletionDelta& delta);
  bool Advance(CompletionDelta& delta);

  State state_;
  std::string held_;                  // arrived, and could still be the beginning of a mark
  std::optional<std::string> block_;  // of tool calls, behind its first words
  std::string tail_;                  // the last of what was given out, to find marks across pieces
  absl::Status status_;
};

// The whole answer at once.
struct Completion {
  std::string reasoning, content;
  std::vector<ToolCall> tool_calls;
  absl::Status status;
};
Completion ParseCompletion(std::string_view text, bool thinking);

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_TEXT_COMPLETION_PARSER_H_
