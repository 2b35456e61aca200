// pattern.h: one regular expression of a tokenizer file, run by PCRE2.
//
// A tokenizer file is written for Oniguruma. What both engines read alike is taken, \s is spelled
// out (Unicode's White_Space; PCRE2's own \s has U+180E too), and everything else is refused, so
// that a pattern never means something different here: \w, \b and \h, anchors, nested and
// intersected classes, named groups, options other than (?i:...).
//
// Threads:   a Pattern is immutable; ForEachMatch from any thread (its scratch is the thread's).
// Units:     offsets in bytes.
// Errors:    INVALID_ARGUMENT: not a pattern, or one that is refused (the place is named).
//            RESOURCE_EXHAUSTED: the text made the pattern backtrack beyond its limit.
#ifndef CAIRN_ENGINE_TEXT_PATTERN_H_
#define CAIRN_ENGINE_TEXT_PATTERN_H_

#include <memory>
#include <string>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "store/base/status.h"

struct pcre2_real_code_8;

namespace cairn::engine {

class Pattern {
 public:
  static absl::StatusOr<Pattern> Compile(std::string_view regex);
  // The text itself, nothing in it is special.
  static absl::StatusOr<Pattern> Literal(std::string_view text);

  // Calls found(begin, end) for each match, from left to right, none overlapping. `text` must be
  // well-formed UTF-8. An empty match where the last one ended is passed over.
  absl::Status ForEachMatch(std::string_view text,
                            absl::FunctionRef<void(size_t, size_t)> found) const;

 private:
  static absl::StatusOr<Pattern> Make(const std::string& pcre, uint32_t options);

  std::shared_ptr<const pcre2_real_code_8> code_;
};

// Private, for its test: the same pattern for PCRE2.
absl::StatusOr<std::string> ToPcre(std::string_view regex);

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_TEXT_PATTERN_H_
