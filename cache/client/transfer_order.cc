#include "cache/client/transfer_order.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "cache/client/protocol.h"

namespace cairn::cache {
namespace {

uint64_t BytesOf(const std::vector<uint32_t>& parts, uint32_t count) {
  return std::accumulate(parts.begin(), parts.begin() + count, uint64_t{0});
}

}  // namespace

absl::StatusOr<std::vector<GroupEnd>> GroupEnds(std::span<const PartGroup> groups,
                                                const EntryShapes& shapes) {
  std::vector<GroupEnd> ends;
  if (groups.empty()) return ends;
  const PartGroup all{static_cast<uint32_t>(shapes.rows.size()),
                      static_cast<uint32_t>(shapes.checkpoint.size())};
  if (groups.size() > kFetchGroupsMax || !(groups.back() == all)) {
    return absl::InvalidArgumentError(
        absl::StrCat("groups: ", groups.size(), ", at most ", kFetchGroupsMax,
                     " are allowed, and the last ends with all of the layout's parts"));
  }
  PartGroup before;
  for (const PartGroup& group : groups) {
    if (group.rows_parts < before.rows_parts || group.checkpoint_parts < before.checkpoint_parts ||
        group.rows_parts > all.rows_parts || group.checkpoint_parts > all.checkpoint_parts) {
      return absl::InvalidArgumentError("groups: their ends do not ascend");
    }
    before = group;
  }
  for (const PartGroup& group : groups.first(groups.size() - 1)) {
    ends.push_back({BytesOf(shapes.rows, group.rows_parts),
                    BytesOf(shapes.checkpoint, group.checkpoint_parts)});
  }
  return ends;
}

std::vector<uint64_t> SizesInStripe(std::vector<uint64_t> sizes, size_t stripe, size_t stripes) {
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (i % stripes != stripe) sizes[i] = 0;
  }
  return sizes;
}

TransferCursor::TransferCursor(std::vector<uint64_t> sizes, size_t rows, std::vector<GroupEnd> ends)
    : sizes_(std::move(sizes)), rows_(rows), ends_(std::move(ends)) {
  Open();
}

uint64_t TransferCursor::EndOf(size_t group) const {
  if (group == ends_.size()) return sizes_[entry_];
  return std::min(entry_ < rows_ ? ends_[group].rows : ends_[group].checkpoint, sizes_[entry_]);
}

void TransferCursor::Advance(uint64_t bytes) {
  offset_ += bytes;
  if (offset_ < end_) return;
  ++entry_;
  Open();
}

// The first piece from the one at hand on that has bytes.
void TransferCursor::Open() {
  for (; group_ < groups(); ++group_, entry_ = 0) {
    for (; entry_ < sizes_.size(); ++entry_) {
      offset_ = group_ == 0 ? 0 : EndOf(group_ - 1);
      end_ = EndOf(group_);
      if (offset_ < end_) return;
    }
  }
}

}  // namespace cairn::cache
