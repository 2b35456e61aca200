#include "cache/core/selection.h"

#include <algorithm>
#include <tuple>

namespace cairn::cache {
namespace {

// Looked at in one step: some ten microseconds.
constexpr size_t kBlocksAtOnce = 256;

bool Matches(const PrefixIndex& index, Block& block, const ListFilter& filter) {
  if (!block.rows.present() && !block.checkpoint.present()) return false;
  if (filter.namespace_root.has_value() && index.RootOf(block) != *filter.namespace_root) {
    return false;
  }
  if (filter.leaves_only && block.has_children_present()) return false;
  return !filter.unused_for.has_value() || UnusedFor(index, block) >= *filter.unused_for;
}

}  // namespace

absl::Duration UnusedFor(const PrefixIndex& index, Block& block) {
  absl::Duration unused = absl::InfiniteDuration();
  for (const EntryKind kind : {EntryKind::kCheckpoint, EntryKind::kRows}) {
    if (block.entry(kind).present()) {
      unused = std::min(unused, index.UnusedFor({&block, kind}));
    }
  }
  return unused;
}

std::vector<Block*> Select(const PrefixIndex& index, const ListFilter& filter) {
  std::vector<Block*> selected;
  const auto consider = [&](Block* block) {
    if (Matches(index, *block, filter)) selected.push_back(block);
  };
  if (!filter.prefix.has_value()) {
    index.VisitAll(consider);
  } else if (Block* top = index.Find(*filter.prefix); top != nullptr) {
    index.VisitSubtree(top, consider);
  }
  std::sort(selected.begin(), selected.end(), [&index](const Block* a, const Block* b) {
    return std::tie(index.RootOf(*a), a->index, a->digest) <
           std::tie(index.RootOf(*b), b->index, b->digest);
  });
  return selected;
}

bool SelectionWalk::Step(const PrefixIndex& index, const std::function<void(Block&)>& visit) {
  if (filter_.prefix.has_value() && !below_.has_value()) {
    below_.emplace();
    if (Block* top = index.Find(*filter_.prefix); top != nullptr) {
      index.VisitSubtree(top, [this](Block* block) { below_->push_back(block->digest); });
    }
  }
  const size_t all = below_.has_value() ? below_->size() : index.block_end();
  const size_t end = std::min(all, next_ + kBlocksAtOnce);
  for (; next_ < end; ++next_) {
    Block* const block = below_.has_value() ? index.Find((*below_)[next_])
                                            : index.BlockAt(static_cast<BlockId>(next_));
    if (block != nullptr && Matches(index, *block, filter_)) visit(*block);
  }
  return next_ < all;
}

}  // namespace cairn::cache
