// CheckpointPolicy of cache_api.h: its text form and its decision.
#include <cstdint>
#include <string>

#include "absl/strings/numbers.h"
#include "cache/client/cache_api.h"
#include "store/base/limits.h"

namespace cairn::cache {
namespace {

constexpr uint32_t kEveryTokensMax = kBlocksPerPrefixMax * kBlockTokens;

absl::Status Bad(const std::string& text, const std::string& why) {
  return absl::InvalidArgumentError(
      absl::StrCat("checkpoint policy \"", text.substr(0, 64), "\": ", why,
                   "; use zero, or full, every:N and ends joined by +"));
}

absl::Status AddWord(const std::string& text, const std::string& word, CheckpointPolicy& policy) {
  if (word == "full" || word == "ends") {
    bool& field = word == "full" ? policy.full : policy.ends;
    if (field) return Bad(text, absl::StrCat(word, " is named twice"));
    field = true;
    return absl::OkStatus();
  }
  if (word.rfind("every:", 0) != 0) {
    return Bad(text, absl::StrCat("\"", word.substr(0, 32), "\" is not known here"));
  }
  if (policy.every_tokens != 0) return Bad(text, "every is named twice");
  const std::string number = word.substr(6);
  uint32_t tokens = 0;
  if (number.find_first_not_of("0123456789") != std::string::npos ||  // SimpleAtoi skips spaces
      !absl::SimpleAtoi(number, &tokens) || tokens == 0 || tokens % kBlockTokens != 0 ||
      tokens > kEveryTokensMax) {
    return Bad(text, absl::StrCat("N of every:N is a multiple of ", kBlockTokens, " from ",
                                  kBlockTokens, " to ", kEveryTokensMax));
  }
  policy.every_tokens = tokens;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CheckpointPolicy> CheckpointPolicy::Parse(const std::string& text) {
  CheckpointPolicy policy;
  if (text == "zero") return policy;
  size_t begin = 0;
  while (true) {
    const size_t plus = text.find('+', begin);
    const std::string word = text.substr(begin, plus == std::string::npos ? plus : plus - begin);
    CAIRN_RETURN_IF_ERROR(AddWord(text, word, policy));
    if (plus == std::string::npos) return policy;
    begin = plus + 1;
  }
}

std::string CheckpointPolicy::ToString() const {
  std::string text;
  const auto add = [&text](const std::string& word) {
    if (!text.empty()) text += '+';
    text += word;
  };
  if (full) add("full");
  if (every_tokens != 0) add(absl::StrCat("every:", every_tokens));
  if (ends) add("ends");
  return text.empty() ? "zero" : text;
}

bool CheckpointPolicy::Wants(uint64_t blocks, bool is_end) const {
  if (blocks == 0) return false;
  return full || (every_tokens != 0 && blocks * kBlockTokens % every_tokens == 0) ||
         (ends && is_end);
}

}  // namespace cairn::cache
