// prefix_index.h: the tree of known blocks: who is whose parent, which entries lie in which tier,
// who holds them, and which of them may be evicted next.
//
// A block has up to two entries, its rows and the checkpoint at its end; an entry is in host
// memory, on disk, in both or (gone) in neither. Which of those that may go goes next is the
// eviction policy's to say (cache/policy). An entry may go from a tier when
//   - nobody leases, holds or pins it;
//   - rows: no child's rows and no checkpoint of this block in that tier, and if this is their last
//     tier, none in any tier and no reservation that builds on them. So a parent outlives its
//     children and a stored block can be reached;
//   - host memory: entries still on their way to disk (queued) come after all others.
//
// Memory: a block is 128 B, its place in the table at most 12 B, each entry's place in a tier's
// order 20 B, and on disk its segment 4 B: about 165 B for rows that lie on one tier. Blocks lie in
// slabs and name each other by number, so ten million of them are 1.6 GB.
//
// Blocks may come before their parents (a catalog is read in no order): the parent then is a
// placeholder without entries until it comes itself.
//
// Threads:   externally synchronised (the core's index mutex).
// Ownership: the index owns Blocks. A Block* stays valid while anything holds it: an entry in a
//            tier, a child, a lease, a hold, a pin, a queued write. Prune() ends blocks that
//            nothing holds.
// Units:     bytes; nanoseconds of Clock.
#ifndef CAIRN_CACHE_CORE_PREFIX_INDEX_H_
#define CAIRN_CACHE_CORE_PREFIX_INDEX_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "cache/core/attributes.h"
#include "cache/core/tier_order.h"
#include "store/base/clock.h"
#include "store/base/entry.h"
#include "store/base/random.h"

namespace cairn::cache {

enum class Place : uint8_t { kHost = 0, kDisk = 1 };
inline constexpr size_t kPlaces = 2;

// A block's number in the index. 0: none.
using BlockId = uint32_t;

struct IndexEntry {
  uint32_t bytes = 0;                 // payload
  uint32_t leases = 0;                // readers
  uint16_t holds = 0;                 // work in progress inside the core
  bool in[kPlaces] = {false, false};  // by Place
  bool queued : 1 = false;            // waits for, or is in, a write to disk
  bool disk_failed : 1 = false;  // its last write to disk failed; tried again with a descendant
  bool pinned : 1 = false;       // by operators
  bool heals : 1 = false;        // its damaged copy on disk is to be written again

  bool present() const { return in[0] || in[1]; }
  bool held() const { return leases != 0 || holds != 0 || pinned; }

 private:
  friend class PrefixIndex;
  bool evictable[kPlaces] = {false, false};  // as the orders were told
  uint32_t used_ticks = 0;
  uint32_t slot[kPlaces] = {0, 0};  // in the tiers' orders; 0: not in that tier
};

struct Block {
  Digest digest;
  BlockId id = 0;
  uint32_t index = 0;
  IndexEntry rows, checkpoint;

  IndexEntry& entry(EntryKind kind) { return kind == EntryKind::kRows ? rows : checkpoint; }
  EntryKey key(EntryKind kind) const { return {digest, kind}; }
  bool has_children_present() const { return children_present != 0; }
  // Prompts part at its end.
  bool is_branch() const { return children_present >= 2; }

 private:
  friend class PrefixIndex;
  uint32_t root = 0;   // number of the namespace; 0: this block is free
  BlockId parent = 0;  // 0 for index 0, and for placeholders
  // Children form a list, so that a subtree can be walked.
  BlockId first_child = 0, next_sibling = 0, previous_sibling = 0;
  uint32_t children_in[kPlaces] = {0, 0};  // with rows there
  uint32_t children_present = 0;           // with rows in any tier
};
static_assert(sizeof(Block) <= 128);

// One entry of one block.
struct EntryRef {
  Block* block = nullptr;
  EntryKind kind = EntryKind::kRows;

  IndexEntry& operator*() const { return block->entry(kind); }
  IndexEntry* operator->() const { return &block->entry(kind); }
  EntryKey key() const { return block->key(kind); }
  friend bool operator==(const EntryRef&, const EntryRef&) = default;
};

class PrefixIndex {
 public:
  struct Options {
    std::string policy[kPlaces] = {kDefaultPolicy, kDefaultPolicy};  // of PolicyNames()
    uint64_t entries_expected[kPlaces] = {1 << 16, 1 << 16};
    // Whether rows without a checkpoint behind them save anything.
    bool resumes_without_checkpoint = false;
    Random* random = nullptr;  // null: SystemRandom()
  };
  // REQUIRES: options.policy is known.
  PrefixIndex(Clock& clock, const Options& options);

  static EntryNumber NumberOf(EntryRef ref) {
    return 2 * ref.block->id + (ref.kind == EntryKind::kCheckpoint ? 1 : 0);
  }
  // What a hit on the entry saves and what keeping it costs, but for the parent's slot.
  EntryFacts FactsOf(EntryRef ref) const;

  // nullptr: unknown.
  Block* Find(const Digest& digest) const;
  // Has memory bring what Find will look at.
  void Prefetch(const Digest& digest) const { table_.prefetch(digest); }
  // The same of the blocks behind this one: a chain that was stored at once lies together.
  void PrefetchBehind(const Block& block) const {
    constexpr BlockId kAhead = 8;
    if (block.id + kAhead < block_end()) __builtin_prefetch(At(block.id + kAhead));
  }
  // Finds or makes the block, and a placeholder for its parent if that is unknown.
  // REQUIRES: Consistent(attributes); Agrees().
  Block* Add(const Digest& digest, const EntryAttributes& attributes);
  // Whether `digest` is unknown, or known with just these attributes.
  bool Agrees(const Digest& digest, const EntryAttributes& attributes) const;

  const Digest& RootOf(const Block& block) const { return roots_[block.root].digest; }
  // Null for index 0 and for placeholders.
  Block* ParentOf(const Block& block) const { return At(block.parent); }
  // Whether all rows from block 0 to this one are present in some tier.
  bool Reachable(const Block& block) const;

  // REQUIRES: the entry's bytes are set. `evicted`: it goes because it is Victim's answer.
  void SetPresent(EntryRef ref, Place place, bool present, bool evicted = false);
  // Present since before the process began: nothing is known of its use.
  void SetFound(EntryRef ref, Place place);
  void SetQueued(EntryRef ref, bool queued);
  void AddLease(EntryRef ref, int change);
  void AddHold(EntryRef ref, int change);
  void AddPin(EntryRef ref, int change);
  // Makes it the most recently used. Touch children before parents: then a leaf is never younger
  // than its ancestors.
  void Touch(EntryRef ref) { Touch(ref, clock_.NowNanos()); }
  void Touch(EntryRef ref, int64_t now_nanos);
  // Touches that the policies have not learned from. Some of each tier's are learned from, or
  // passed without it: whether more are left.
  size_t unlearned_uses() const { return order_[0].noted_uses() + order_[1].noted_uses(); }
  bool PassUses(size_t uses) {
    const bool left = order_[0].Pass(uses);
    return order_[1].Pass(uses) || left;
  }
  bool Learn(size_t uses) {
    const bool left = order_[0].Learn(uses);
    return order_[1].Learn(uses) || left;
  }
  absl::Duration UnusedFor(EntryRef ref) const;
  // Counts reservations of entries that build on the rows of `digest` (known or not yet).
  void Await(const Digest& digest, int change);

  // The entry that the policy would let go from `place`; nullopt: none may.
  std::optional<EntryRef> Victim(Place place);
  bool Evictable(EntryRef ref, Place place) const;
  // Whether it may go from disk if its checkpoint there and all rows below it there go too.
  bool EvictableWithAllBelow(EntryRef ref) const;
  // Whether the policy of that tier weighs, and what it says of an entry that is there.
  bool weighs(Place place) const { return order_[static_cast<size_t>(place)].weighs(); }
  double Value(EntryRef ref, Place place) {
    return order_[static_cast<size_t>(place)].Value(ref->slot[static_cast<size_t>(place)]);
  }
  // Notes that the entry lies in this segment, and returns a number by which it is found as long as
  // it is not taken from disk. REQUIRES: it is on disk.
  uint32_t SetSegment(EntryRef ref, uint32_t segment);
  // No block: it has gone, or its segment was set anew.
  EntryRef FindInSegment(uint32_t number, uint32_t segment) const;
  // Whether the entry may go from every tier at once.
  bool Removable(EntryRef ref) const;
  // Forgets the block, and then its ancestors, if nothing needs them.
  void Prune(Block* block);

  Block* FirstChild(const Block& block) const { return At(block.first_child); }
  Block* NextSibling(const Block& block) const { return At(block.next_sibling); }
  // Visits `top` and its descendants, children before parents. The visitor must not prune.
  void VisitSubtree(Block* top, const std::function<void(Block*)>& visit) const;
  void VisitAll(const std::function<void(Block*)>& visit) const;
  // The block of this number, below block_end(); null if there is none. For walks that let go of
  // the lock on their way.
  Block* BlockAt(BlockId id) const {
    Block* const block = At(id);
    return block == nullptr || block->root == 0 ? nullptr : block;
  }
  BlockId block_end() const { return static_cast<BlockId>(slabs_.size()) << kSlabBits; }
  // Placeholders included.
  uint64_t block_count() const { return table_.size(); }
  // What all this takes, slack included.
  uint64_t memory_bytes() const;

 private:
  static constexpr uint32_t kSlabBits = 12;
  static constexpr uint32_t kSlabBlocks = 1u << kSlabBits;

  // The table holds block numbers; digests are found through the slabs.
  struct TableHash {
    using is_transparent = void;
    const PrefixIndex* index = nullptr;
    size_t operator()(const Digest& digest) const { return absl::Hash<Digest>()(digest); }
    size_t operator()(BlockId id) const { return (*this)(index->At(id)->digest); }
  };
  struct TableEqual {
    using is_transparent = void;
    const PrefixIndex* index = nullptr;
    bool operator()(BlockId a, BlockId b) const { return a == b; }
    bool operator()(BlockId a, const Digest& b) const { return index->At(a)->digest == b; }
  };
  struct Root {
    Digest digest;
    uint64_t blocks = 0;
  };

  Block* At(BlockId id) const {
    return id == 0 ? nullptr : &slabs_[id >> kSlabBits][id & (kSlabBlocks - 1)];
  }
  EntryRef RefOf(EntryNumber number) const {
    return {At(number / 2), number % 2 == 0 ? EntryKind::kRows : EntryKind::kCheckpoint};
  }
  Block* NewBlock(const Digest& digest, const Digest& root, uint32_t index);
  void DropBlock(Block* block);
  uint32_t TakeRoot(const Digest& digest);
  void Refresh(EntryRef ref);
  void RefreshPlace(EntryRef ref, Place place);
  void ListQueued(uint32_t slot, bool listed);
  void Enter(EntryRef ref, Place place, bool found);
  void Change(EntryRef ref, Place place, bool present, bool quietly);
  void LinkToParent(Block* block, const EntryAttributes& attributes);
  void UnlinkFromParent(Block* block);
  Block* Deepest(Block* block) const;
  uint32_t Ticks(int64_t now_nanos) const;

  Clock& clock_;
  const int64_t started_nanos_;
  const bool resumes_without_checkpoint_;
  std::vector<std::unique_ptr<Block[]>> slabs_;
  std::vector<BlockId> free_;
  absl::flat_hash_set<BlockId, TableHash, TableEqual> table_;
  std::vector<Root> roots_;
  absl::flat_hash_map<Digest, uint32_t> root_ids_;
  absl::flat_hash_map<Digest, uint32_t> awaited_;
  absl::flat_hash_map<EntryKey, uint32_t> pins_;
  TierOrder order_[kPlaces];
  // In host memory, evictable, and on their way to disk: slots by when they became so, and back.
  absl::btree_map<uint64_t, uint32_t> queued_;
  absl::flat_hash_map<uint32_t, uint64_t> queued_since_;
  uint64_t queued_count_ = 0;
};

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_CORE_PREFIX_INDEX_H_
