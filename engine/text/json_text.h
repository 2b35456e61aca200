// json_text.h: JSON as Python's json module reads and writes it, which is how DeepSeek-V4 was shown
// tools and arguments: members in their order, ", " and ": ", other scripts unescaped, floats as
// repr() prints them. Of a key given twice the last value counts, in the first one's place.
//
// Threads: pure.
// Errors:  INVALID_ARGUMENT beginning with `name`: not JSON, not UTF-8, nested deeper than
//          kJsonDepthMax, or an integer beyond 64 bits, which could only be kept rounded.
#ifndef CAIRN_ENGINE_TEXT_JSON_TEXT_H_
#define CAIRN_ENGINE_TEXT_JSON_TEXT_H_

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "store/base/status.h"

namespace cairn::engine {

inline constexpr int kJsonDepthMax = 64;

absl::StatusOr<nlohmann::ordered_json> ParseJson(std::string_view text, const std::string& name);

// As json.dumps(value, ensure_ascii=False). REQUIRES: strings are UTF-8.
std::string PythonJson(const nlohmann::ordered_json& value);

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_TEXT_JSON_TEXT_H_
