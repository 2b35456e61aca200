#include "cache/core/departure.h"

#include <algorithm>
#include <limits>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "store/base/limits.h"

namespace cairn::cache {
namespace {

constexpr size_t kDisk = static_cast<size_t>(Place::kDisk);
constexpr size_t kBelowMax = 4096;
// A segment that gives back less than this share of itself is not worth the trouble.
constexpr uint64_t kFreedShareDivisor = 20;
constexpr double kStays = std::numeric_limits<double>::infinity();

// What an entry of the index takes on disk: nearly every record has a header of one I/O unit.
uint64_t RecordBytes(EntryRef ref) { return RoundUpToIo(ref->bytes) + kIoAlignment; }

// The most that anything in it is worth, for a block's rows and all that stands on them on disk.
class Worth {
 public:
  explicit Worth(PrefixIndex& index) : index_(index) {}

  double Of(EntryRef ref) {
    if (ref.kind == EntryKind::kRows) return OfSubtree(ref.block);
    return index_.EvictableWithAllBelow(ref) ? index_.Value(ref, Place::kDisk) : kStays;
  }

 private:
  struct Frame {
    Block* block = nullptr;
    Block* child = nullptr;  // the next to look at
    double worth = 0;
  };

  Frame Enter(Block* block) {
    const EntryRef rows{block, EntryKind::kRows}, checkpoint{block, EntryKind::kCheckpoint};
    double worth = index_.EvictableWithAllBelow(rows) ? index_.Value(rows, Place::kDisk) : kStays;
    if (checkpoint->in[kDisk]) worth = std::max(worth, Of(checkpoint));
    return {block, index_.FirstChild(*block), worth};
  }

  double OfSubtree(Block* top) {
    if (const auto known = known_.find(top->id); known != known_.end()) return known->second;
    std::vector<Frame> path = {Enter(top)};
    while (true) {
      Frame& at = path.back();
      if (at.child != nullptr && at.worth < kStays) {
        Block* const child = at.child;
        at.child = index_.NextSibling(*child);
        if (!child->rows.in[kDisk]) continue;
        if (const auto known = known_.find(child->id); known != known_.end()) {
          at.worth = std::max(at.worth, known->second);
        } else if (looked_at_++ < kBelowMax) {
          path.push_back(Enter(child));
        } else {
          at.worth = kStays;
        }
        continue;
      }
      const double worth = at.worth;
      known_[at.block->id] = worth;
      path.pop_back();
      if (path.empty()) return worth;
      path.back().worth = std::max(path.back().worth, worth);
    }
  }

  PrefixIndex& index_;
  absl::flat_hash_map<BlockId, double> known_;
  size_t looked_at_ = 0;
};

struct Weighed {
  EntryRef ref;
  double worth = 0;
};

}  // namespace

std::optional<Departure> PlanDeparture(PrefixIndex& index, const store::DiskSegment& segment,
                                       std::span<const EntryRef> here) {
  std::vector<Weighed> entries;
  for (const EntryRef ref : here) entries.push_back({ref});
  // Children before parents; a block's checkpoint before its rows.
  const auto deeper = [](const Weighed& a, const Weighed& b) {
    if (a.ref.block->index != b.ref.block->index) return a.ref.block->index > b.ref.block->index;
    return a.ref.kind > b.ref.kind;
  };
  // The deepest first, so that what is known of them serves those above.
  std::stable_sort(entries.begin(), entries.end(), deeper);
  Worth worth(index);
  for (Weighed& entry : entries) entry.worth = worth.Of(entry.ref);
  std::stable_sort(entries.begin(), entries.end(),
                   [](const Weighed& a, const Weighed& b) { return a.worth < b.worth; });

  const uint64_t moved_max = store::DiskTier::MovedBytesMax(segment.bytes);
  uint64_t kept_bytes = segment.live_bytes;
  double lost = 0;
  size_t count = 0, best_count = 0;
  std::optional<Departure> best;
  const auto weigh = [&] {
    const uint64_t freed = segment.bytes - std::min(segment.bytes, kept_bytes);
    if (kept_bytes > moved_max || freed < segment.bytes / kFreedShareDivisor) return;
    const double lost_per_byte = lost / static_cast<double>(std::max<uint64_t>(1, freed));
    if (best.has_value() && lost_per_byte > best->lost_per_byte) return;
    best = Departure{{}, lost_per_byte};
    best_count = count;
  };
  weigh();
  for (const Weighed& entry : entries) {
    if (entry.worth == kStays) break;
    const uint64_t bytes = RecordBytes(entry.ref);
    lost += entry.worth * static_cast<double>(bytes);
    kept_bytes -= std::min(kept_bytes, bytes);
    ++count;
    weigh();
  }
  if (!best.has_value()) return std::nullopt;
  for (size_t i = 0; i < best_count; ++i) best->leaving.push_back(entries[i].ref);
  return best;
}

std::vector<EntryRef> WithAllBelow(const PrefixIndex& index, std::span<const EntryRef> leaving) {
  std::vector<EntryRef> all;
  absl::flat_hash_set<EntryKey> seen;
  const auto add = [&](EntryRef ref) {
    if (ref->in[kDisk] && seen.insert(ref.key()).second) all.push_back(ref);
  };
  for (const EntryRef ref : leaving) {
    if (seen.contains(ref.key())) continue;
    if (ref.kind == EntryKind::kCheckpoint) {
      add(ref);
      continue;
    }
    std::vector<Block*> below = {ref.block};  // parents first
    for (size_t i = 0; i < below.size(); ++i) {
      for (Block* child = index.FirstChild(*below[i]); child != nullptr;
           child = index.NextSibling(*child)) {
        if (child->rows.in[kDisk]) below.push_back(child);
      }
    }
    for (auto block = below.rbegin(); block != below.rend(); ++block) {
      add({*block, EntryKind::kCheckpoint});
      add({*block, EntryKind::kRows});
    }
  }
  return all;
}

}  // namespace cairn::cache
