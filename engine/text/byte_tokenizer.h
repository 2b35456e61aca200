// byte_tokenizer.h: text to token ids and back where a model comes without a tokenizer file: a byte
// is its own id, and the ids from 256 on are the marks of a conversation as far as the vocabulary
// has room for them.
//
// Threads: immutable. Errors: INVALID_ARGUMENT naming the position, the id or byte, and the
// vocabulary.
#ifndef CAIRN_ENGINE_TEXT_BYTE_TOKENIZER_H_
#define CAIRN_ENGINE_TEXT_BYTE_TOKENIZER_H_

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/tokenizer.h"

namespace cairn::engine {

class ByteTokenizer final : public Tokenizer {
 public:
  explicit ByteTokenizer(int64_t vocab) : vocab_(vocab) {}

  int64_t vocab() const override { return vocab_; }
  std::optional<int32_t> Mark(std::string_view text) const override;

  // One id a byte, of any bytes. A mark that the vocabulary has no room for is left out; a byte
  // that a vocabulary under 256 does not have is an error.
  absl::StatusOr<std::vector<int32_t>> Encode(
      std::string_view text, std::span<const TextRange> literal = {}) const override;

  // Ids that mean nothing are "<300>".
  std::string Bytes(int32_t id) const override;
  bool IsSpecial(int32_t id) const override;

 private:
  int64_t vocab_;
};

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_TEXT_BYTE_TOKENIZER_H_
