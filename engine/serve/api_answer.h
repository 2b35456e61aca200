// api_answer.h: outputs to the answers of /v1/completions and /v1/chat/completions: whole, or as
// the events of a stream. Both take the same outputs, so both say the same.
//
// Threads: one at a time. Ownership: the tokenizer outlives it. Errors: none.
#ifndef CAIRN_ENGINE_SERVE_API_ANSWER_H_
#define CAIRN_ENGINE_SERVE_API_ANSWER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/serve/generation.h"
#include "engine/text/tokenizer.h"

namespace cairn::engine {

struct AnswerHead {
  std::string id;
  int64_t created = 0;  // seconds since 1970
  std::string model;
  bool include_usage = false;  // in a stream: one more event
  bool logprobs = false;
};

class ApiAnswer {
 public:
  virtual ~ApiAnswer() = default;

  // Adds an output to the whole answer, and returns the events that it makes, as JSON texts. Not
  // for failed ones.
  virtual std::vector<std::string> Add(const Output& output) = 0;
  // REQUIRES: the last output finished it.
  virtual std::string Whole() const = 0;
};

std::unique_ptr<ApiAnswer> MakeCompletionAnswer(AnswerHead head, const Tokenizer& tokenizer);
// `thinking`: the prompt ended with <think>.
std::unique_ptr<ApiAnswer> MakeChatAnswer(AnswerHead head, const Tokenizer& tokenizer,
                                          bool thinking);

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_SERVE_API_ANSWER_H_
