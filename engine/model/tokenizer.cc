#include "engine/model/tokenizer.h"

#include <array>

namespace cairn::engine {
namespace {

constexpr int32_t kBytes = 256;
constexpr std::array<const char*, 6> kSpecialNames = {"<bos>",       "<eos>",   "<user>",
                                                      "<assistant>", "<think>", "</think>"};

}  // namespace

std::optional<int32_t> ByteTokenizer::Special(SpecialToken token) const {
  const int32_t id = static_cast<int32_t>(token);
  if (id >= vocab_) return std::nullopt;
  return id;
}

absl::StatusOr<std::vector<int32_t>> ByteTokenizer::Encode(std::string_view text) const {
  std::vector<int32_t> ids;
  ids.reserve(text.size());
  for (char c : text) ids.push_back(static_cast<uint8_t>(c));
  CAIRN_RETURN_IF_ERROR(Check(ids));
  return ids;
}

absl::StatusOr<std::string> ByteTokenizer::Decode(std::span<const int32_t> ids) const {
  CAIRN_RETURN_IF_ERROR(Check(ids));
  std::string text;
  for (int32_t id : ids) {
    const size_t special = static_cast<size_t>(id - kBytes);
    if (id < kBytes) {
      text.push_back(static_cast<char>(id));
    } else if (special < kSpecialNames.size()) {
      text += kSpecialNames[special];
    } else {
      absl::StrAppend(&text, "<", id, ">");
    }
  }
  return text;
}

absl::Status ByteTokenizer::Check(std::span<const int32_t> ids) const {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= 0 && ids[i] < vocab_) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("token ", i, ": id ", ids[i], " is outside of the vocabulary of ", vocab_));
  }
  return absl::OkStatus();
}

}  // namespace cairn::engine
