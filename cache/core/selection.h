// selection.h: the blocks that an operator's filter means.
//
// Threads: externally synchronised, as PrefixIndex; a walk lets go of the lock between its steps.
// Ownership: a walk does not outlive the index.
#ifndef CAIRN_CACHE_CORE_SELECTION_H_
#define CAIRN_CACHE_CORE_SELECTION_H_

#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include "cache/core/cache_core.h"
#include "cache/core/prefix_index.h"

namespace cairn::cache {

// Since the later use of the block's entries.
absl::Duration UnusedFor(const PrefixIndex& index, Block& block);

// All of them, by namespace, then parents before children.
std::vector<Block*> Select(const PrefixIndex& index, const ListFilter& filter);

// The same in steps and in no order, so that nobody waits long for the index however large it is.
// What comes or goes meanwhile may be met or not.
class SelectionWalk {
 public:
  explicit SelectionWalk(ListFilter filter) : filter_(std::move(filter)) {}
  // Shows those of the next few blocks. False: there are no more.
  bool Step(const PrefixIndex& index, const std::function<void(Block&)>& visit);

 private:
  const ListFilter filter_;
  std::optional<std::vector<Digest>> below_;  // filter_.prefix and its descendants
  size_t next_ = 0;                           // of these, or else of all numbers
};

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_CORE_SELECTION_H_
