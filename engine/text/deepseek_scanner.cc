#include "engine/text/deepseek_scanner.h"

#include "engine/text/unicode_class.h"
#include "engine/text/utf8.h"

namespace cairn::engine {
namespace {

using Emit = absl::FunctionRef<void(std::string_view)>;

bool IsIdeographOrKana(char32_t c) {
  return (c >= 0x4E00 && c <= 0x9FA5) || (c >= 0x3040 && c <= 0x30FF);
}
bool IsAsciiLetter(char32_t c) { return (c | 0x20) >= 'a' && (c | 0x20) <= 'z' && c < 0x80; }
bool IsNewline(char32_t c) { return c == '\r' || c == '\n'; }

// The third pattern on one segment, which has neither numbers nor, unless it has nothing else,
// ideographs and kana. Letters stand for the pattern's alternatives, in order:
//   P [ascii punctuation][A-Za-z]+    W [^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+
//   S ' '?[\p{P}\p{S}]+[\r\n]*        N \s*[\r\n]+    E \s+(?!\S)    R \s+
class GeneralPattern {
 public:
  GeneralPattern(const uint8_t* classes, std::string_view text) : classes_(classes), text_(text) {}

  void Scan(Emit emit) {
    size_t unmatched = 0;  // since where nothing has matched
    for (size_t at = 0; at < text_.size();) {
      const size_t end = Match(at);
      if (end == at) {  // a control or format character, alone
        NextCodePoint(text_, at);
        continue;
      }
      if (unmatched < at) emit(text_.substr(unmatched, at - unmatched));
      emit(text_.substr(at, end - at));
      at = unmatched = end;
    }
    if (unmatched < text_.size()) emit(text_.substr(unmatched));
  }

 private:
  struct Char {
    char32_t point;
    uint8_t kind;
    size_t end;
  };

  Char At(size_t at) const {
    const char32_t point = NextCodePoint(text_, at);
    return {point, classes_[point], at};
  }

  // The end of the match that begins at `at`; `at` itself if none does.
  size_t Match(size_t at) const {
    const Char first = At(at);
    if (first.kind & kLetterOrMark) return RunEnd(first.end, kLetterOrMark);  // W
    const bool more = first.end < text_.size();
    const Char second = more ? At(first.end) : Char{0, 0, first.end};
    if (first.kind & kPunctOrSymbol) {
      if (first.point < 0x80 && IsAsciiLetter(second.point)) {  // P
        size_t end = second.end;
        while (end < text_.size() && IsAsciiLetter(static_cast<uint8_t>(text_[end]))) ++end;
        return end;
      }
      return SymbolsEnd(first.end);  // S
    }
    if (!IsNewline(first.point) && (second.kind & kLetterOrMark)) {  // W
      return RunEnd(second.end, kLetterOrMark);
    }
    if (first.point == ' ' && (second.kind & kPunctOrSymbol)) return SymbolsEnd(second.end);  // S
    if (first.kind & kSpace) return SpacesEnd(at);
    return at;
  }

  size_t RunEnd(size_t at, uint8_t kind) const {
    while (at < text_.size()) {
      const Char c = At(at);
      if (!(c.kind & kind)) break;
      at = c.end;
    }
    return at;
  }

  size_t SymbolsEnd(size_t at) const {
    at = RunEnd(at, kPunctOrSymbol);
    while (at < text_.size() && IsNewline(static_cast<uint8_t>(text_[at]))) ++at;
    return at;
  }

  // N, E, R: to behind the last newline of the run of spaces; without one, all of it at the text's
  // end; else all but its last, which then begins the next match; a single one alone.
  size_t SpacesEnd(size_t at) const {
    size_t last = at, end = at, newline = at;
    while (end < text_.size()) {
      const Char c = At(end);
      if (!(c.kind & kSpace)) break;
      last = end;
      end = c.end;
      if (IsNewline(c.point)) newline = end;
    }
    if (newline > at) return newline;
    if (end == text_.size() || last == at) return end;
    return last;
  }

  const uint8_t* classes_;
  std::string_view text_;
};

}  // namespace

absl::StatusOr<DeepSeekScanner> DeepSeekScanner::Make() {
  CAIRN_ASSIGN_OR_RETURN(const uint8_t* classes, UnicodeClasses());
  return DeepSeekScanner(classes);
}

void DeepSeekScanner::Scan(std::string_view text, Emit emit) const {
  enum class Kind : uint8_t { kDigits, kIdeograph, kOther };
  size_t begin = 0, numbers = 0;
  Kind kind = Kind::kOther;
  // Numbers match nothing in the third pattern; they are done with the first.
  const auto close = [&](size_t end) {
    if (begin == end) return;
    const std::string_view segment = text.substr(begin, end - begin);
    if (kind == Kind::kDigits) {
      emit(segment);
    } else {
      GeneralPattern(classes_, segment).Scan(emit);
    }
  };
  for (size_t at = 0; at < text.size();) {
    const size_t here = at;
    const char32_t c = NextCodePoint(text, at);
    const Kind now = classes_[c] & kNumber  ? Kind::kDigits
                     : IsIdeographOrKana(c) ? Kind::kIdeograph
                                            : Kind::kOther;
    if (now != kind || (now == Kind::kDigits && numbers == 3)) {
      close(here);
      begin = here;
      numbers = 0;
      kind = now;
    }
    if (now == Kind::kDigits) ++numbers;
  }
  close(text.size());
}

}  // namespace cairn::engine
