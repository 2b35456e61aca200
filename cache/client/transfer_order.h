// transfer_order.h: in which order the bytes of a fetched prefix travel, for both ends of the wire.
// Group after group; in each the entries one after another, the rows' and then the checkpoint's; of
// each entry what is in the group. With one group that is entry after entry.
//
// Where several connections carry a prefix, each has a stripe of its entries: entry i is in stripe
// i modulo their number, and a stripe travels as a prefix of its entries alone would.
//
// Threads: externally synchronised. Units: bytes.
#ifndef CAIRN_CACHE_CLIENT_TRANSFER_ORDER_H_
#define CAIRN_CACHE_CLIENT_TRANSFER_ORDER_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "cache/client/cache_api.h"
#include "cache/client/layout.h"

namespace cairn::cache {

// So many leading bytes of each entry are in a group or in one before it.
struct GroupEnd {
  uint64_t rows = 0;
  uint64_t checkpoint = 0;
  friend bool operator==(const GroupEnd&, const GroupEnd&) = default;
};

// Of all groups but the last, which ends with the entries. INVALID_ARGUMENT: they do not ascend, do
// not end with the layout's parts, or are more than kFetchGroupsMax.
absl::StatusOr<std::vector<GroupEnd>> GroupEnds(std::span<const PartGroup> groups,
                                                const EntryShapes& shapes);

// Of `sizes` what is in a stripe: other entries have no bytes there. REQUIRES: stripe < stripes.
std::vector<uint64_t> SizesInStripe(std::vector<uint64_t> sizes, size_t stripe, size_t stripes);

// Goes over a transfer piece by piece: what one entry has in one group. Pieces of no bytes are
// passed over.
class TransferCursor {
 public:
  // `sizes`: of `rows` rows entries and then of the checkpoint, if there is one. `ends`: as
  // GroupEnds.
  TransferCursor(std::vector<uint64_t> sizes, size_t rows, std::vector<GroupEnd> ends);

  bool Done() const { return group_ == groups(); }
  size_t groups() const { return ends_.size() + 1; }
  // The piece's; of the group also: so many are behind it.
  size_t group() const { return group_; }
  // Here and below REQUIRES: !Done().
  size_t entry() const { return entry_; }
  uint64_t offset() const { return offset_; }       // in the entry: the next byte's
  uint64_t left() const { return end_ - offset_; }  // of the piece; at least 1
  // REQUIRES: bytes <= left().
  void Advance(uint64_t bytes);

 private:
  // In the entry at hand, where a group ends.
  uint64_t EndOf(size_t group) const;
  void Open();

  const std::vector<uint64_t> sizes_;
  const size_t rows_;
  const std::vector<GroupEnd> ends_;
  size_t group_ = 0, entry_ = 0;
  uint64_t offset_ = 0, end_ = 0;
};

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_CLIENT_TRANSFER_ORDER_H_
