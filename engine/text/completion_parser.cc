#include "engine/text/completion_parser.h"

#include <algorithm>

#include "engine/text/dsml.h"
#include "engine/text/marks.h"

namespace cairn::engine {
namespace {

// Of which none belongs into words.
constexpr std::string_view kNoWords[] = {kBos, kThink, kEndThink, kDsml};
constexpr size_t kTailBytes = kBos.size() - 1;

// How many bytes at the end of `text` could be the beginning of `mark`.
size_t OpenEnd(std::string_view text, std::string_view mark) {
  for (size_t n = std::min(text.size(), mark.size() - 1); n > 0; --n) {
    if (text.substr(text.size() - n) == mark.substr(0, n)) return n;
  }
  return 0;
}

absl::Status Unclosed() { return absl::InvalidArgumentError("reasoning: </think> is missing"); }

}  // namespace

// Gives out the first `bytes` of held_, or adds them to the block of calls.
void CompletionParser::GiveOut(size_t bytes, CompletionDelta& delta) {
  const std::string words = held_.substr(0, bytes);
  held_.erase(0, bytes);
  if (state_ == State::kToolCalls) {
    *block_ += words;
    return;
  }
  const bool reasoning = state_ == State::kReasoning;
  (reasoning ? delta.reasoning : delta.content) += words;
  tail_ += words;
  for (const std::string_view mark : kNoWords) {
    if (tail_.find(mark) == std::string::npos) continue;
    status_.Update(absl::InvalidArgumentError(absl::StrCat(
        reasoning ? "reasoning" : "content", ": the mark ", std::string(mark), " is amid words")));
  }
  tail_.erase(0, tail_.size() - std::min(tail_.size(), kTailBytes));
}

// Goes on to the next state if the mark that ends this one has arrived.
bool CompletionParser::Advance(CompletionDelta& delta) {
  if (state_ == State::kEnded) {
    if (!held_.empty()) status_.Update(absl::InvalidArgumentError("text behind the turn's end"));
    held_.clear();
    return false;
  }
  // Which mark leads from here to what, beside the end of the turn.
  std::string_view mark = state_ == State::kReasoning ? kEndThink : kToolCallsStart;
  State next = state_ == State::kReasoning ? State::kContent : State::kToolCalls;
  size_t found = state_ == State::kToolCalls ? std::string::npos : held_.find(mark);
  const size_t open = std::max(OpenEnd(held_, mark), OpenEnd(held_, kEos));
  if (const size_t end = held_.find(kEos); end < found) {
    found = end;
    mark = kEos;
    next = State::kEnded;
  }
  if (found == std::string::npos) {
    GiveOut(held_.size() - open, delta);
    return false;
  }
  GiveOut(found, delta);
  held_.erase(0, mark.size());
  if (state_ == State::kReasoning && next == State::kEnded) status_.Update(Unclosed());
  if (next == State::kToolCalls) block_.emplace();
  state_ = next;
  tail_.clear();
  return true;
}

CompletionDelta CompletionParser::Feed(std::string_view text) {
  CompletionDelta delta;
  held_ += text;
  while (Advance(delta)) {
  }
  return delta;
}

CompletionEnd CompletionParser::Finish() {
  CompletionEnd end;
  if (state_ == State::kReasoning) status_.Update(Unclosed());
  GiveOut(held_.size(), end.last);
  if (block_) {
    absl::StatusOr<std::vector<ToolCall>> calls = ReadToolCalls(*block_);
    if (calls.ok()) {
      end.tool_calls = std::move(calls).value();
    } else {
      status_.Update(calls.status());
      end.last.content = absl::StrCat(std::string(kToolCallsStart), *block_);
    }
  }
  end.status = status_;
  return end;
}

Completion ParseCompletion(std::string_view text, bool thinking) {
  CompletionParser parser(thinking);
  CompletionDelta delta = parser.Feed(text);
  CompletionEnd end = parser.Finish();
  return {delta.reasoning + end.last.reasoning, delta.content + end.last.content,
          std::move(end.tool_calls), std::move(end.status)};
}

}  // namespace cairn::engine
