// prompt_text.h: a prompt being written, with the note of which of its text is somebody's own words
// and must not be read as marks (tokenizer.h, literal).
//
// Threads: one. Errors: none.
#ifndef CAIRN_ENGINE_TEXT_PROMPT_TEXT_H_
#define CAIRN_ENGINE_TEXT_PROMPT_TEXT_H_

#include <string>
#include <string_view>
#include <vector>

#include "engine/text/tokenizer.h"

namespace cairn::engine {

struct PromptText {
  std::string text;
  std::vector<TextRange> literal;

  // The encoding's own words, marks among them.
  void Write(std::string_view own) { text += own; }
  void WriteLiteral(std::string_view words) {
    if (!words.empty()) literal.push_back({text.size(), text.size() + words.size()});
    text += words;
  }
};

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_TEXT_PROMPT_TEXT_H_
