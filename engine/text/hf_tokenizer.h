// hf_tokenizer.h: a Hugging Face tokenizer.json with byte-level BPE.
//
// Gives the ids that the tokenizers library gives with add_special_tokens=False; README.md says
// what of the file is taken, what is refused, and where Unicode versions part.
//
// Threads:   any. Scratch memory is kept from call to call, one for each call that ran at once.
// Units:     bytes of text, at most kTextBytesMax.
// Errors:    LoadTokenizer (tokenizer.h): INVALID_ARGUMENT naming the file and the field.
//            Encode: INVALID_ARGUMENT for a text that is too long; RESOURCE_EXHAUSTED (pattern.h).
#ifndef CAIRN_ENGINE_TEXT_HF_TOKENIZER_H_
#define CAIRN_ENGINE_TEXT_HF_TOKENIZER_H_

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "engine/text/added_tokens.h"
#include "engine/text/bpe.h"
#include "engine/text/pre_tokenizer.h"
#include "engine/text/tokenizer.h"
#include "store/base/mutex.h"

namespace cairn::engine {

inline constexpr size_t kTextBytesMax = size_t{1} << 30;

// What a tokenizer.json comes to (tokenizer_file.cc).
struct TokenizerParts {
  PreTokenizer pre_tokenizer;
  AddedTokens added;
  Bpe bpe;
  std::vector<std::string> bytes;  // of each id that has a token
  absl::flat_hash_map<std::string, int32_t> marks;
  absl::flat_hash_set<int32_t> special;
};

// `text` is the file's. Without `scanner`, see pre_tokenizer.h.
absl::StatusOr<TokenizerParts> ParseTokenizerFile(std::string_view text, bool scanner = true);

class HfTokenizer final : public Tokenizer {
 public:
  // INVALID_ARGUMENT if the parts have an id outside of [0, vocab).
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Make(TokenizerParts parts, int64_t vocab);

  int64_t vocab() const override { return vocab_; }
  std::optional<int32_t> Mark(std::string_view text) const override;

  // Broken UTF-8 is replaced first (utf8.h).
  absl::StatusOr<std::vector<int32_t>> Encode(
      std::string_view text, std::span<const TextRange> literal = {}) const override;

  std::string Bytes(int32_t id) const override;
  bool IsSpecial(int32_t id) const override { return parts_.special.contains(id); }

 private:
  HfTokenizer(TokenizerParts parts, int64_t vocab) : parts_(std::move(parts)), vocab_(vocab) {}

  std::unique_ptr<BpeScratch> TakeScratch() const;

  const TokenizerParts parts_;
  const int64_t vocab_;
  mutable Mutex mutex_;
  mutable std::vector<std::unique_ptr<BpeScratch>> idle_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_TEXT_HF_TOKENIZER_H_
