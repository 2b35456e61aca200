// stop_matcher.h: finds the first of some texts in a text that arrives in pieces.
//
// The match that ends first counts, and of those that end together the longest; so the result does
// not depend on the cuts. Text that could still be the beginning of a match is held back.
//
// Threads: one at a time. Errors: none.
#ifndef CAIRN_ENGINE_SERVE_STOP_MATCHER_H_
#define CAIRN_ENGINE_SERVE_STOP_MATCHER_H_

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace cairn::engine {

class StopMatcher {
 public:
  // None of them is empty.
  explicit StopMatcher(std::vector<std::string> stops) : stops_(std::move(stops)) {}

  // What may be shown. After a match: what came before it, and from then on nothing.
  std::string Feed(std::string_view text);
  // At the end of the text: what was held back.
  std::string Finish();
  bool stopped() const { return stopped_; }

 private:
  size_t OpenEnd() const;

  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_SERVE_STOP_MATCHER_H_
