// prompts_file.h: prompts for `verify`, one a line. A line that begins with '{' is a JSON object
// whose "prompt" is a text (with line breaks as \n) or an array of token ids; any other line is
// itself the text. Empty lines are no prompts.
//
// Threads: pure. Errors: NOT_FOUND; INVALID_ARGUMENT naming the line.
#ifndef CAIRN_ENGINE_CAIRN_ENGINE_PROMPTS_FILE_H_
#define CAIRN_ENGINE_CAIRN_ENGINE_PROMPTS_FILE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "engine/text/tokenizer.h"
#include "store/base/status.h"

namespace cairn::engine {

struct FilePrompt {
  size_t line = 0;  // counted from 1
  std::vector<int32_t> tokens;
};

// Marks in a text are marks: prompts are as the engine sees them, after chat encoding.
absl::StatusOr<std::vector<FilePrompt>> ReadPromptsFile(const std::string& path,
                                                        const Tokenizer& tokenizer);

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_CAIRN_ENGINE_PROMPTS_FILE_H_
