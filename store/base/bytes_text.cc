#include "store/base/bytes_text.h"

#include <charconv>
#include <cmath>
#include <utility>

#include "absl/strings/strip.h"

namespace cairn {

absl::StatusOr<uint64_t> ParseBytes(const std::string& text) {
  static constexpr std::pair<const char*, double> kUnits[] = {
      {"", 1},      {"B", 1},        {"kB", 1e3},     {"KB", 1e3},     {"MB", 1e6},    {"GB", 1e9},
      {"TB", 1e12}, {"KiB", 1024.0}, {"MiB", 0x1p20}, {"GiB", 0x1p30}, {"TiB", 0x1p40}};
  double number = 0;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string unit(rest, text.data() + text.size());
  for (const auto& [name, factor] : kUnits) {
    const double bytes = number * factor;
    if (error == std::errc() && unit == name && bytes >= 0 && bytes < 0x1p62 &&
        bytes == std::floor(bytes)) {
      return static_cast<uint64_t>(bytes);
    }
  }
  return absl::InvalidArgumentError(
      absl::StrCat("'", text, "' is no size such as 512MiB, 64GiB or 10GB"));
}

absl::StatusOr<uint64_t> ParseByteRate(const std::string& text) {
  const absl::StatusOr<uint64_t> rate = ParseBytes(std::string(absl::StripSuffix(text, "/s")));
  if (rate.ok() && *rate > 0) return rate;
  return absl::InvalidArgumentError(
      absl::StrCat("'", text, "' is no rate such as 32MiB/s or 100MB/s"));
}

}  // namespace cairn
