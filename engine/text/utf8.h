// utf8.h: well-formed UTF-8 (Unicode 15.0, table 3-7), and what stands for bytes that are not.
//
// Broken bytes become U+FFFD, one for each maximal part of a sequence that could have gone on: the
// Unicode recommendation, and what Python's bytes.decode("utf-8", "replace") and Rust's
// from_utf8_lossy do, so a tokenizer library behind either of them is given the same text.
//
// Threads: pure functions; a Utf8Stream belongs to one thread. Errors: none.
#ifndef CAIRN_ENGINE_TEXT_UTF8_H_
#define CAIRN_ENGINE_TEXT_UTF8_H_

#include <cstdint>
#include <string>
#include <string_view>

namespace cairn::engine {

bool IsUtf8(std::string_view bytes);

std::string ReplaceBrokenUtf8(std::string_view bytes);

// The code point at `at`, which must begin a well-formed sequence; moves `at` behind it.
inline char32_t NextCodePoint(std::string_view text, size_t& at) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const char32_t lead = byte(at++);
  if (lead < 0x80) return lead;
  if (lead < 0xE0) return (lead & 0x1F) << 6 | (byte(at++) & 0x3Fu);
  char32_t point = lead & (lead < 0xF0 ? 0x0F : 0x07);
  const int more = lead < 0xF0 ? 2 : 3;
  for (int i = 0; i < more; ++i) point = point << 6 | (byte(at++) & 0x3Fu);
  return point;
}

void AppendCodePoint(std::string& text, char32_t point);

// Bytes in pieces, text out: holds back a sequence that is not complete yet (3 bytes at most).
// All that Feed and Finish return together is ReplaceBrokenUtf8 of all that was fed, at any cuts.
class Utf8Stream {
 public:
  std::string Feed(std::string_view bytes);
  std::string Finish();

 private:
  std::string held_;
};

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_TEXT_UTF8_H_
