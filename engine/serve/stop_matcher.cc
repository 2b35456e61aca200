#include "engine/serve/stop_matcher.h"

#include <algorithm>

namespace cairn::engine {

std::string StopMatcher::Feed(std::string_view text) {
  if (stopped_) return "";
  for (const char byte : text) {
    held_ += byte;
    size_t longest = 0;
    for (const std::string& stop : stops_) {
      if (stop.size() > longest && held_.ends_with(stop)) longest = stop.size();
    }
    if (longest > 0) {
      stopped_ = true;
      held_.resize(held_.size() - longest);
      return std::exchange(held_, "");
    }
  }
  std::string shown = held_.substr(0, held_.size() - OpenEnd());
  held_.erase(0, shown.size());
  return shown;
}

std::string StopMatcher::Finish() { return std::exchange(held_, ""); }

// How many bytes at the end could be the beginning of a match.
size_t StopMatcher::OpenEnd() const {
  size_t open = 0;
  for (const std::string& stop : stops_) {
    for (size_t n = std::min(held_.size(), stop.size() - 1); n > open; --n) {
      if (held_.ends_with(std::string_view(stop).substr(0, n))) open = n;
    }
  }
  return open;
}

}  // namespace cairn::engine
