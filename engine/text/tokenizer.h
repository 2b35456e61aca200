// tokenizer.h: text to token ids and back, whatever file or rule is behind it.
//
// Marks are tokens that text does not make by itself: <｜User｜>, </think> and the like. Encode
// finds them by their text, except within ranges that the caller calls literal: what a user wrote
// must not open a turn.
//
// Threads:   any; a StreamDecoder belongs to one.
// Units:     offsets and sizes in bytes.
// Errors:    INVALID_ARGUMENT naming the position, the id, and the vocabulary; RESOURCE_EXHAUSTED
//            from a file's patterns (pattern.h).
#ifndef CAIRN_ENGINE_TEXT_TOKENIZER_H_
#define CAIRN_ENGINE_TEXT_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/utf8.h"
#include "store/base/status.h"

namespace cairn::engine {

struct TextRange {
  size_t begin = 0, end = 0;
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // The model's vocabulary: ids are in [0, vocab).
  virtual int64_t vocab() const = 0;

  // The id of the mark with this text; nullopt where there is none.
  virtual std::optional<int32_t> Mark(std::string_view text) const = 0;

  // No marks are added at the ends. `literal` is sorted and does not overlap.
  virtual absl::StatusOr<std::vector<int32_t>> Encode(
      std::string_view text, std::span<const TextRange> literal = {}) const = 0;

  // The bytes of one token, which need not be whole characters; an id that has no token has none.
  // REQUIRES: id is in the vocabulary.
  virtual std::string Bytes(int32_t id) const = 0;

  // Whether a reader of the answer is not to see it: the file's `special`.
  virtual bool IsSpecial(int32_t id) const = 0;

  // All tokens' bytes, as UTF-8 (broken bytes replaced: utf8.h).
  absl::StatusOr<std::string> Decode(std::span<const int32_t> ids, bool skip_special = false) const;

  // OK when every id is in the vocabulary.
  absl::Status Check(std::span<const int32_t> ids) const;
};

// Decode, token by token: text comes out as soon as its characters are whole, and all of it
// together is what Decode says.
class StreamDecoder {
 public:
  // `tokenizer` must outlive it.
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special = false)
      : tokenizer_(tokenizer), skip_special_(skip_special) {}

  absl::StatusOr<std::string> Feed(int32_t id);
  // At the end: what stands for an unfinished character, if there is one.
  std::string Finish() { return stream_.Finish(); }

 private:
  const Tokenizer& tokenizer_;
  bool skip_special_;
  Utf8Stream stream_;
};

// From a model's tokenizer.json, for a model with `vocab` ids; `path` may also be named by hand.
absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer(const std::string& path, int64_t vocab);

// `file` if it is given, else tokenizer.json in the model's directory, else bytes
// (byte_tokenizer.h).
absl::StatusOr<std::unique_ptr<Tokenizer>> TokenizerOf(const std::string& model_directory,
                                                       const std::string& file, int64_t vocab);

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_TEXT_TOKENIZER_H_
