#include "engine/text/byte_tokenizer.h"

#include <algorithm>

#include "engine/text/marks.h"

namespace cairn::engine {
namespace {

constexpr int32_t kBytes = 256;
// In the order of their ids.
constexpr std::string_view kMarks[] = {kBos, kEos, kUser, kAssistant, kThink, kEndThink};

// The index of the mark that `text` begins with; -1 if none.
int32_t MarkAt(std::string_view text) {
  for (size_t i = 0; i < std::size(kMarks); ++i) {
    if (text.substr(0, kMarks[i].size()) == kMarks[i]) return static_cast<int32_t>(i);
  }
  return -1;
}

}  // namespace

std::optional<int32_t> ByteTokenizer::Mark(std::string_view text) const {
  const int32_t mark = MarkAt(text);
  if (mark < 0 || kMarks[mark].size() != text.size() || kBytes + mark >= vocab_) return {};
  return kBytes + mark;
}

absl::StatusOr<std::vector<int32_t>> ByteTokenizer::Encode(
    std::string_view text, std::span<const TextRange> literal) const {
  std::vector<int32_t> ids;
  ids.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    while (!literal.empty() && literal[0].end <= at) literal = literal.subspan(1);
    const size_t open_end = literal.empty() ? text.size() : std::max(at, literal[0].begin);
    const int32_t mark = text[at] == '<' ? MarkAt(text.substr(at, open_end - at)) : -1;
    if (mark >= 0) {
      if (kBytes + mark < vocab_) ids.push_back(kBytes + mark);
      at += kMarks[mark].size();
    } else {
      ids.push_back(static_cast<uint8_t>(text[at++]));
    }
  }
  CAIRN_RETURN_IF_ERROR(Check(ids));
  return ids;
}

std::string ByteTokenizer::Bytes(int32_t id) const {
  if (id < kBytes) return std::string(1, static_cast<char>(id));
  if (IsSpecial(id)) return std::string(kMarks[id - kBytes]);
  return absl::StrCat("<", id, ">");
}

bool ByteTokenizer::IsSpecial(int32_t id) const {
  return id >= kBytes && static_cast<size_t>(id - kBytes) < std::size(kMarks);
}

}  // namespace cairn::engine
