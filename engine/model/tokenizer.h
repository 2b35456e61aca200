// tokenizer.h: text to token ids and back where a model comes without a tokenizer file: a byte is
// its own id, and the ids from 256 on are the marks of a conversation as far as the vocabulary has
// room for them.
//
// Threads: values. Errors: INVALID_ARGUMENT naming the position, the id or byte, and the
// vocabulary.
#ifndef CAIRN_ENGINE_MODEL_TOKENIZER_H_
#define CAIRN_ENGINE_MODEL_TOKENIZER_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "store/base/status.h"

namespace cairn::engine {

enum class SpecialToken : int32_t {
  kBos = 256,
  kEos,
  kUser,
  kAssistant,
  kThink,
  kEndThink,
};

class ByteTokenizer {
 public:
  explicit ByteTokenizer(int64_t vocab) : vocab_(vocab) {}

  int64_t vocab() const { return vocab_; }

  // nullopt where the vocabulary has no room for it.
  std::optional<int32_t> Special(SpecialToken token) const;

  // One id a byte; never makes a special id, so text cannot pretend to be a mark. Fails only on a
  // byte that a vocabulary under 256 does not have.
  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text) const;

  // Bytes as they are; specials as "<user>", ids that mean nothing as "<300>".
  absl::StatusOr<std::string> Decode(std::span<const int32_t> ids) const;

  // OK when every id is in [0, vocab).
  absl::Status Check(std::span<const int32_t> ids) const;

 private:
  int64_t vocab_;
};

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_MODEL_TOKENIZER_H_
