#include "engine/text/utf8.h"

#include <cstring>

namespace cairn::engine {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

enum class Kind : uint8_t { kWhole, kBroken, kCut };

struct Sequence {
  Kind kind;
  size_t bytes;  // at least 1; of a broken one, its maximal valid part
};

// The sequence at the beginning of `bytes`, which is not empty.
Sequence FirstSequence(std::string_view bytes) {
  const uint8_t lead = static_cast<uint8_t>(bytes[0]);
  if (lead < 0x80) return {Kind::kWhole, 1};
  if (lead < 0xC2 || lead > 0xF4) return {Kind::kBroken, 1};
  const size_t whole = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  // The second byte's range keeps out overlong forms, surrogates and what is beyond U+10FFFF.
  uint8_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  uint8_t high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  size_t n = 1;
  for (; n < whole && n < bytes.size(); ++n, low = 0x80, high = 0xBF) {
    const uint8_t byte = static_cast<uint8_t>(bytes[n]);
    if (byte < low || byte > high) return {Kind::kBroken, n};
  }
  return {n == whole ? Kind::kWhole : Kind::kCut, n};
}

// Appends `bytes` to `out`, replaced where broken; returns the length of a cut sequence at the end,
// which it leaves out.
size_t AppendReplaced(std::string_view bytes, std::string& out) {
  out.reserve(out.size() + bytes.size());
  while (!bytes.empty()) {
    const Sequence s = FirstSequence(bytes);
    if (s.kind == Kind::kCut) return s.bytes;
    out += s.kind == Kind::kWhole ? bytes.substr(0, s.bytes) : kReplacement;
    bytes.remove_prefix(s.bytes);
  }
  return 0;
}

}  // namespace

bool IsUtf8(std::string_view bytes) {
  while (!bytes.empty()) {
    // Most text is ASCII, which is known eight bytes at a time.
    uint64_t eight = 0;
    if (bytes.size() >= sizeof(eight)) {
      std::memcpy(&eight, bytes.data(), sizeof(eight));
      if ((eight & 0x8080808080808080) == 0) {
        bytes.remove_prefix(sizeof(eight));
        continue;
      }
    }
    const Sequence s = FirstSequence(bytes);
    if (s.kind != Kind::kWhole) return false;
    bytes.remove_prefix(s.bytes);
  }
  return true;
}

std::string ReplaceBrokenUtf8(std::string_view bytes) {
  std::string out;
  if (AppendReplaced(bytes, out) > 0) out += kReplacement;
  return out;
}

void AppendCodePoint(std::string& text, char32_t point) {
  const auto more = [&](int shift) {
    text.push_back(static_cast<char>(0x80 | (point >> shift & 0x3F)));
  };
  if (point < 0x80) {
    text.push_back(static_cast<char>(point));
  } else if (point < 0x800) {
    text.push_back(static_cast<char>(0xC0 | point >> 6));
    more(0);
  } else if (point < 0x10000) {
    text.push_back(static_cast<char>(0xE0 | point >> 12));
    more(6), more(0);
  } else {
    text.push_back(static_cast<char>(0xF0 | point >> 18));
    more(12), more(6), more(0);
  }
}

std::string Utf8Stream::Feed(std::string_view bytes) {
  held_ += bytes;
  std::string out;
  const size_t cut = AppendReplaced(held_, out);
  held_.erase(0, held_.size() - cut);
  return out;
}

std::string Utf8Stream::Finish() {
  const std::string out = ReplaceBrokenUtf8(held_);
  held_.clear();
  return out;
}

}  // namespace cairn::engine
