#include "engine/text/unicode_class.h"

#include <string>
#include <vector>

#include "engine/text/pattern.h"
#include "engine/text/utf8.h"

namespace cairn::engine {
namespace {

constexpr std::pair<uint8_t, const char*> kKinds[] = {
    {kLetterOrMark, R"([\p{L}\p{M}]+)"},
    {kPunctOrSymbol, R"([\p{P}\p{S}]+)"},
    {kNumber, R"(\p{N}+)"},
    {kSpace, R"(\s+)"},
    {kWordPart, R"([\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]+)"},
    {kUnassigned, R"(\p{Cn}+)"},
};

absl::StatusOr<std::vector<uint8_t>> MakeTable() {
  std::string all;
  for (char32_t point = 0; point < kCodePoints; ++point) {
    if (point < 0xD800 || point > 0xDFFF) AppendCodePoint(all, point);
  }
  std::vector<uint8_t> table(kCodePoints);
  for (const auto& [bit, regex] : kKinds) {
    const auto mark = [&, bit = bit](size_t begin, size_t end) {
      while (begin < end) table[NextCodePoint(all, begin)] |= bit;
    };
    CAIRN_ASSIGN_OR_RETURN(const Pattern pattern, Pattern::Compile(regex));
    CAIRN_RETURN_IF_ERROR(pattern.ForEachMatch(all, mark));
  }
  return table;
}

}  // namespace

absl::StatusOr<const uint8_t*> UnicodeClasses() {
  static const auto& table = *new absl::StatusOr<std::vector<uint8_t>>(MakeTable());
  if (!table.ok()) return table.status();
  return table->data();
}

}  // namespace cairn::engine
