// pre_tokenizer.h: a tokenizer file's `pre_tokenizer`: cuts text into the pieces within which BPE
// merges.
//
// Taken: null, Split (Regex or String; every behaviour; invert), ByteLevel (add_prefix_space,
// use_regex), and a Sequence of them. Each stage cuts the pieces of the one before, alone: a
// pattern does not see beyond its piece. DeepSeek's own sequence is known and takes
// deepseek_scanner.h instead of PCRE2.
//
// Threads:   immutable.
// Ownership: pieces are views, good until emit returns.
// Errors:    Make: INVALID_ARGUMENT naming the field. Cut: RESOURCE_EXHAUSTED (pattern.h).
#ifndef CAIRN_ENGINE_TEXT_PRE_TOKENIZER_H_
#define CAIRN_ENGINE_TEXT_PRE_TOKENIZER_H_

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/deepseek_scanner.h"
#include "engine/text/pattern.h"

namespace cairn::engine {

enum class SplitBehavior : uint8_t {
  kIsolated,
  kRemoved,
  kMergedWithPrevious,
  kMergedWithNext,
  kContiguous,
};

class PreTokenizer {
 public:
  // `json` is the file's member, null included. Without `scanner`, DeepSeek's sequence is cut by
  // its patterns too: for tests that compare the two.
  static absl::StatusOr<PreTokenizer> Make(const nlohmann::json& json, bool scanner = true);

  // `text` must be well-formed UTF-8. On an error, pieces may have been emitted already.
  absl::Status Cut(std::string_view text, absl::FunctionRef<void(std::string_view)> emit) const;

 private:
  struct Stage {
    std::optional<Pattern> pattern;  // none: only the prefix space
    SplitBehavior behavior = SplitBehavior::kIsolated;
    bool invert = false;
    bool prefix_space = false;
  };
  friend class PreTokenizerReader;

  absl::Status CutFrom(size_t stage, std::string_view piece,
                       absl::FunctionRef<void(std::string_view)> emit) const;

  std::optional<DeepSeekScanner> scanner_;  // instead of stages_
  std::vector<Stage> stages_;
};

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_TEXT_PRE_TOKENIZER_H_
