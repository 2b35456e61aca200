#define PCRE2_CODE_UNIT_WIDTH 8
#include "engine/text/pattern.h"

#include <pcre2.h>

#include "engine/text/utf8.h"

namespace cairn::engine {
namespace {

constexpr size_t kPatternBytesMax = 64 << 10;
// Backtracking steps of one match. The longest that a sane pattern needs is a few a byte.
constexpr uint32_t kMatchLimit = 50'000'000;
constexpr size_t kJitStackBytes = 32 << 10, kJitStackBytesMax = 1 << 20;

// What a match needs beside the pattern. Two offsets do for any pattern: only the whole match is
// asked for.
struct Scratch {
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(kJitStackBytes, kJitStackBytesMax, nullptr);

  Scratch() {
    pcre2_set_match_limit(context, kMatchLimit);
    pcre2_jit_stack_assign(context, nullptr, stack);
  }
  ~Scratch() {
    pcre2_jit_stack_free(stack);
    pcre2_match_context_free(context);
    pcre2_match_data_free(data);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
};

bool StartsWithAny(std::string_view text, std::initializer_list<std::string_view> starts) {
  for (const std::string_view start : starts) {
    if (text.substr(0, start.size()) == start) return true;
  }
  return false;
}

// Reads a pattern from left to right and writes it for PCRE2.
class Translator {
 public:
  explicit Translator(std::string_view regex) : in_(regex) {}

  absl::StatusOr<std::string> Run() {
    while (at_ < in_.size() && error_.empty()) Step();
    if (error_.empty()) return std::move(out_);
    return absl::InvalidArgumentError(
        absl::StrCat("pattern at byte ", at_, ": ", error_, " is not supported"));
  }

 private:
  void Step() {
    const char c = in_[at_];
    if (c == '\\') return Escape();
    if (in_class_) {
      if (c == '[') return Refuse("a class inside of a class");
      if (StartsWithAny(Rest(), {"&&"})) return Refuse("an intersection of classes");
      if (c == ']') in_class_ = false;
      return Copy(1);
    }
    if (c == '[') {
      in_class_ = true;
      Copy(1);
      if (StartsWithAny(Rest(), {"^"})) Copy(1);
      // Oniguruma warns of an unescaped ] here, and PCRE2 takes it as a member.
      if (StartsWithAny(Rest(), {"]"})) Refuse("] as the first of a class");
      return;
    }
    if (c == '^' || c == '$') return Refuse("an anchor");
    if (StartsWithAny(Rest(), {"(?", "(*"}) &&
        !StartsWithAny(Rest(), {"(?:", "(?=", "(?!", "(?i:", "(?>", "(?<=", "(?<!"})) {
      return Refuse("this kind of group");
    }
    if (StartsWithAny(Rest(), {"{,", "}+"})) return Refuse("this kind of repetition");
    Copy(1);
  }

  void Escape() {
    if (at_ + 1 == in_.size()) return Refuse("a backslash at the end");
    const unsigned char c = static_cast<unsigned char>(in_[at_ + 1]);
    if (c == 's' || c == 'S') {
      out_ += c == 's' ? "\\p{White_Space}" : "\\P{White_Space}";
      at_ += 2;
    } else if (c == 'p' || c == 'P' || c == 'x') {
      const size_t end = in_.find('}', at_);
      if (!StartsWithAny(in_.substr(at_ + 2), {"{"}) || end == std::string_view::npos) {
        return Refuse("a property or code point without braces");
      }
      Copy(end + 1 - at_);
    } else if (c == 'u') {
      if (at_ + 6 > in_.size()) return Refuse("a short \\u");
      out_.append("\\x{").append(in_.substr(at_ + 2, 4)).append("}");
      at_ += 6;
    } else if (c == 'd' || c == 'D' || c == 'r' || c == 'n' || c == 't' || c == 'f' ||
               (c < 0x80 && std::ispunct(c) != 0)) {
      Copy(2);
    } else {
      Refuse(std::string(in_.substr(at_, 2)));
    }
  }

  std::string_view Rest() const { return in_.substr(at_); }
  void Copy(size_t bytes) {
    out_ += in_.substr(at_, bytes);
    at_ += bytes;
  }
  void Refuse(std::string what) { error_ = std::move(what); }

  std::string_view in_;
  size_t at_ = 0;
  bool in_class_ = false;
  std::string out_, error_;
};

std::string ErrorText(int code) {
  PCRE2_UCHAR8 text[256];
  if (pcre2_get_error_message(code, text, sizeof(text)) < 0) return absl::StrCat("error ", code);
  return reinterpret_cast<const char*>(text);
}

}  // namespace

absl::StatusOr<std::string> ToPcre(std::string_view regex) { return Translator(regex).Run(); }

absl::StatusOr<Pattern> Pattern::Compile(std::string_view regex) {
  CAIRN_ASSIGN_OR_RETURN(const std::string pcre, ToPcre(regex));
  return Make(pcre, PCRE2_UCP);
}

absl::StatusOr<Pattern> Pattern::Literal(std::string_view text) {
  return Make(std::string(text), PCRE2_LITERAL);
}

absl::StatusOr<Pattern> Pattern::Make(const std::string& pcre, uint32_t options) {
  if (pcre.size() > kPatternBytesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("pattern of ", pcre.size(), " bytes; at most ", kPatternBytesMax));
  }
  const std::unique_ptr<pcre2_compile_context, decltype(&pcre2_compile_context_free)> context(
      pcre2_compile_context_create(nullptr), &pcre2_compile_context_free);
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);  // what . leaves out, whatever the package's
  int error = 0;
  PCRE2_SIZE at = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pcre.data()), pcre.size(),
                                   PCRE2_UTF | options, &error, &at, context.get());
  if (code == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("pattern at byte ", at, " (as PCRE2 reads it): ", ErrorText(error)));
  }
  Pattern pattern;
  pattern.code_.reset(code, &pcre2_code_free);
  // Without the JIT (not on this processor) matching is slower and the same.
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
  return pattern;
}

absl::Status Pattern::ForEachMatch(std::string_view text,
                                   absl::FunctionRef<void(size_t, size_t)> found) const {
  thread_local const Scratch scratch;
  const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(scratch.data);
  size_t from = 0;
  size_t last_end = std::string_view::npos;
  while (from <= text.size()) {
    const int rc = pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                               from, PCRE2_NO_UTF_CHECK, scratch.data, scratch.context);
    if (rc == PCRE2_ERROR_NOMATCH) break;
    if (rc < 0) {
      return absl::ResourceExhaustedError(absl::StrCat("a tokenizer pattern gave up at byte ", from,
                                                       " of a piece: ", ErrorText(rc)));
    }
    const size_t begin = offsets[0], end = offsets[1];
    if (begin == end && begin == last_end) {
      if (begin == text.size()) break;
      from = begin;
      NextCodePoint(text, from);
      continue;
    }
    found(begin, end);
    from = last_end = end;
  }
  return absl::OkStatus();
}

}  // namespace cairn::engine
