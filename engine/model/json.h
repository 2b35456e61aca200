// json.h: JSON from files nobody vouches for. Duplicate keys and deep nesting are refused: of two
// values for one key a reader and a checker could each believe another.
//
// Threads: pure. Errors: INVALID_ARGUMENT beginning with `name`. For engine/model and engine/text.
#ifndef CAIRN_ENGINE_MODEL_JSON_H_
#define CAIRN_ENGINE_MODEL_JSON_H_

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "store/base/status.h"

namespace cairn::engine {

// `text` must be one JSON object.
absl::StatusOr<nlohmann::json> ParseJsonObject(std::string_view text, const std::string& name);

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_MODEL_JSON_H_
