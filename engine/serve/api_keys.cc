#include "engine/serve/api_keys.h"

#include <algorithm>
#include <optional>
#include <sstream>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "store/device/secret_file.h"

namespace cairn::engine {
namespace {

constexpr size_t kKeyBytesMin = 16, kKeyBytesMax = 512;
constexpr std::string_view kScheme = "bearer ";
constexpr std::string_view kSpaces = " \t\r";

std::string_view Trimmed(std::string_view text) {
  const size_t begin = std::min(text.find_first_not_of(kSpaces), text.size());
  return text.substr(begin, text.find_last_not_of(kSpaces) + 1 - begin);
}

bool IsBearer(std::string_view authorization) {
  return authorization.size() >= kScheme.size() &&
         std::equal(kScheme.begin(), kScheme.end(), authorization.begin(), [](char want, char is) {
           return want == absl::ascii_tolower(static_cast<unsigned char>(is));
         });
}

bool IsKey(std::string_view text) {
  return text.size() >= kKeyBytesMin && text.size() <= kKeyBytesMax &&
         std::all_of(text.begin(), text.end(),
                     [](unsigned char c) { return absl::ascii_isgraph(c); });
}

Digest DigestOf(std::string_view key) {
  return Sha256({reinterpret_cast<const uint8_t*>(key.data()), key.size()});
}

}  // namespace

absl::StatusOr<ApiKeys> ApiKeys::Parse(std::string_view text, const std::string& name) {
  ApiKeys keys;
  std::istringstream lines{std::string(text)};
  std::string whole;
  for (int number = 1; std::getline(lines, whole); ++number) {
    const std::string_view line = Trimmed(whole);
    if (line.empty() || line[0] == '#') continue;
    if (!IsKey(line)) {
      return absl::InvalidArgumentError(absl::StrCat(name, ":", number, ": not a key of ",
                                                     kKeyBytesMin, " to ", kKeyBytesMax,
                                                     " visible ASCII characters"));
    }
    keys.digests_.insert(DigestOf(line));
  }
  if (keys.empty())
    return absl::InvalidArgumentError(absl::StrCat(name, ": there is no key in it"));
  return keys;
}

absl::StatusOr<ApiKeys> ApiKeys::Load(const std::string& path) {
  CAIRN_ASSIGN_OR_RETURN(const std::optional<std::string> text, store::ReadSecret(path));
  if (!text.has_value()) return absl::NotFoundError(absl::StrCat("there is no file ", path));
  return Parse(*text, path);
}

bool ApiKeys::LetIn(std::string_view authorization) const {
  if (empty()) return true;
  if (!IsBearer(authorization)) return false;
  const std::string_view key = Trimmed(authorization.substr(kScheme.size()));
  return key.size() <= kKeyBytesMax && digests_.contains(DigestOf(key));
}

}  // namespace cairn::engine
