// CheckpointPolicy of cache_api.h: its text form and its decisions.
#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "cache/client/cache_api.h"
#include "store/base/limits.h"

namespace cairn::cache {
namespace {

constexpr uint32_t kEveryTokensMax = kBlocksPerPrefixMax * kBlockTokens;
constexpr absl::Duration kTtlMax = absl::Hours(24 * 3650);
constexpr char kTtl[] = ":ttl=";
// The largest first.
constexpr std::pair<char, int64_t> kUnits[] = {{'d', 86'400}, {'h', 3'600}, {'m', 60}, {'s', 1}};

absl::Status Bad(const std::string& text, const std::string& why) {
  return absl::InvalidArgumentError(
      absl::StrCat("checkpoint policy \"", text.substr(0, 64), "\": ", why,
                   "; use zero, or full, every:N, branches and ends joined by +, each with a TTL "
                   "behind it or without, such as ends:ttl=1h"));
}

// SimpleAtoi skips spaces and takes signs.
bool ParseDigits(const std::string& text, uint32_t& value) {
  return text.find_first_not_of("0123456789") == std::string::npos &&
         absl::SimpleAtoi(text, &value);
}

absl::StatusOr<absl::Duration> ParseTtl(const std::string& text, std::string ttl) {
  uint32_t count = 0;
  for (const auto& [unit, seconds] : kUnits) {
    if (ttl.empty() || ttl.back() != unit) continue;
    ttl.pop_back();
    const absl::Duration value =
        ParseDigits(ttl, count) ? absl::Seconds(count * seconds) : absl::ZeroDuration();
    if (value > absl::ZeroDuration() && value <= kTtlMax) return value;
    break;
  }
  return Bad(text, "a TTL is a whole number of s, m, h or d, from 1s to 3650d");
}

std::string TtlText(absl::Duration ttl) {
  if (ttl == absl::InfiniteDuration()) return "";
  const int64_t seconds = absl::ToInt64Seconds(ttl);
  for (const auto& [unit, size] : kUnits) {
    if (seconds % size == 0) return absl::StrCat(kTtl, seconds / size, std::string(1, unit));
  }
  return "";  // not reached: seconds divide all
}

absl::Status AddWord(const std::string& text, std::string word, CheckpointPolicy& policy) {
  absl::Duration ttl = absl::InfiniteDuration();
  if (const size_t at = word.find(kTtl); at != std::string::npos) {
    CAIRN_ASSIGN_OR_RETURN(ttl, ParseTtl(text, word.substr(at + sizeof(kTtl) - 1)));
    word.resize(at);
  }
  struct Flag {
    const char* word;
    bool& on;
    absl::Duration& ttl;
  };
  for (const Flag& flag : {Flag{"full", policy.full, policy.full_ttl},
                           Flag{"branches", policy.branches, policy.branches_ttl},
                           Flag{"ends", policy.ends, policy.ends_ttl}}) {
    if (word != flag.word) continue;
    if (flag.on) return Bad(text, absl::StrCat(word, " is named twice"));
    flag.on = true;
    flag.ttl = ttl;
    return absl::OkStatus();
  }
  if (word.rfind("every:", 0) != 0) {
    return Bad(text, absl::StrCat("\"", word.substr(0, 32), "\" is not known here"));
  }
  if (policy.every_tokens != 0) return Bad(text, "every is named twice");
  uint32_t tokens = 0;
  if (!ParseDigits(word.substr(6), tokens) || tokens == 0 || tokens % kBlockTokens != 0 ||
      tokens > kEveryTokensMax) {
    return Bad(text, absl::StrCat("N of every:N is a multiple of ", kBlockTokens, " from ",
                                  kBlockTokens, " to ", kEveryTokensMax));
  }
  policy.every_tokens = tokens;
  policy.every_ttl = ttl;
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
  const auto add = [&text](const std::string& word, absl::Duration ttl) {
    if (!text.empty()) text += '+';
    absl::StrAppend(&text, word, TtlText(ttl));
  };
  if (full) add("full", full_ttl);
  if (every_tokens != 0) add(absl::StrCat("every:", every_tokens), every_ttl);
  if (branches) add("branches", branches_ttl);
  if (ends) add("ends", ends_ttl);
  return text.empty() ? "zero" : text;
}

CheckpointPolicy CheckpointPolicy::WithoutTtls() const {
  return {.full = full, .every_tokens = every_tokens, .branches = branches, .ends = ends};
}

bool CheckpointPolicy::Wants(uint64_t blocks, bool is_end, bool is_branch) const {
  if (blocks == 0) return false;
  return full || (every_tokens != 0 && blocks * kBlockTokens % every_tokens == 0) ||
         (branches && is_branch) || (ends && is_end);
}

absl::Duration CheckpointPolicy::TtlAt(uint64_t blocks, bool is_branch) const {
  absl::Duration ttl = absl::ZeroDuration();
  if (full) ttl = std::max(ttl, full_ttl);
  if (every_tokens != 0 && blocks * kBlockTokens % every_tokens == 0) {
    ttl = std::max(ttl, every_ttl);
  }
  if (branches && is_branch) ttl = std::max(ttl, branches_ttl);
  if (ttl > absl::ZeroDuration()) return ttl;
  return ends ? ends_ttl : branches ? branches_ttl : absl::InfiniteDuration();
}

}  // namespace cairn::cache
