// chat_encoder.h: a conversation to the prompt that DeepSeek-V4 was trained on.
//
// One text, in marks and words; README.md says how modes and drop_thinking change it and what that
// does to prefix reuse. A conversation that ends with a user's turn ends the prompt where the
// answer begins; one that ends with an answer is written whole.
//
// Threads: pure. Errors: none; ParseMessages has checked the conversation.
#ifndef CAIRN_ENGINE_TEXT_CHAT_ENCODER_H_
#define CAIRN_ENGINE_TEXT_CHAT_ENCODER_H_

#include <vector>

#include "engine/text/chat_message.h"
#include "engine/text/prompt_text.h"

namespace cairn::engine {

enum class ThinkingMode : uint8_t {
  kNone,  // the answer begins at once
  kHigh,
  kMax,  // as high, with a demand for more at the very beginning of the prompt
};

struct ChatOptions {
  ThinkingMode mode = ThinkingMode::kHigh;
  // Leave out the reasoning of answers before the last user turn. Without effect where a message
  // has tools: their calls are to be followed whole.
  bool drop_thinking = true;
  bool bos = true;
};

PromptText EncodeChat(const std::vector<Message>& messages, const ChatOptions& options);

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_TEXT_CHAT_ENCODER_H_
