#include "engine/model/json.h"

#include <set>
#include <vector>

#include "absl/strings/escaping.h"

namespace cairn::engine {
namespace {

constexpr int kDepthMax = 16;

// Watches the parser's events; the first finding is kept.
class Watcher {
 public:
  bool operator()(int depth, nlohmann::json::parse_event_t event, nlohmann::json& value) {
    using Event = nlohmann::json::parse_event_t;
    if (depth > kDepthMax) {
      Report(absl::StrCat("is nested deeper than ", kDepthMax));
      return false;
    }
    if (event == Event::object_start) {
      keys_.emplace_back();
    } else if (event == Event::object_end) {
      keys_.pop_back();
    } else if (event == Event::key) {
      const std::string& key = value.get_ref<const std::string&>();
      if (!keys_.empty() && !keys_.back().insert(key).second) {
        // It goes into logs: not as long, nor with such bytes, as a file's author likes.
        Report(absl::StrCat("has the key \"", absl::CHexEscape(key.substr(0, 64)), "\" twice"));
      }
    }
    return true;
  }

  const std::string& finding() const { return finding_; }

 private:
  void Report(std::string finding) {
    if (finding_.empty()) finding_ = std::move(finding);
  }

  std::vector<std::set<std::string>> keys_;
  std::string finding_;
};

}  // namespace

absl::StatusOr<nlohmann::json> ParseJsonObject(std::string_view text, const std::string& name) {
  Watcher watcher;
  nlohmann::json json = nlohmann::json::parse(text, std::ref(watcher), /*allow_exceptions=*/false);
  if (!watcher.finding().empty()) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": the JSON ", watcher.finding()));
  }
  if (json.is_discarded()) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": not valid JSON"));
  }
  if (!json.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": not a JSON object"));
  }
  return json;
}

}  // namespace cairn::engine
