#include "cache/core/prefix_index.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace cairn::cache {
namespace {

// Last uses are kept in eighths of a second since the index was made: 17 years in 32 bits.
constexpr int64_t kTickNanos = 125'000'000;

// How far back a checkpoint's worth is counted: a bound on the walk, not on the worth of prefixes.
constexpr uint64_t kGapBlocksMax = 1024;

constexpr Place Other(Place place) { return place == Place::kHost ? Place::kDisk : Place::kHost; }
constexpr size_t Of(Place place) { return static_cast<size_t>(place); }

std::unique_ptr<EvictionPolicy> PolicyOf(const PrefixIndex::Options& options, Place place) {
  auto policy =
      MakePolicy(options.policy[Of(place)],
                 {.entries_expected = options.entries_expected[Of(place)],
                  .random = options.random != nullptr ? options.random : &SystemRandom()});
  if (!policy.ok()) std::abort();  // REQUIRES in the header
  return *std::move(policy);
}

}  // namespace

PrefixIndex::PrefixIndex(Clock& clock, const Options& options)
    : clock_(clock),
      started_nanos_(clock.NowNanos()),
      resumes_without_checkpoint_(options.resumes_without_checkpoint),
      table_(0, TableHash{this}, TableEqual{this}),
      roots_(1),
      order_{TierOrder(PolicyOf(options, Place::kHost)),
             TierOrder(PolicyOf(options, Place::kDisk))} {}

// ---- blocks ----

Block* PrefixIndex::Find(const Digest& digest) const {
  const auto it = table_.find(digest);
  return it == table_.end() ? nullptr : At(*it);
}

bool PrefixIndex::Agrees(const Digest& digest, const EntryAttributes& attributes) const {
  if (const Block* block = Find(digest); block != nullptr) {
    if (RootOf(*block) != attributes.root || block->index != attributes.index) return false;
    const Block* parent = ParentOf(*block);
    if (parent != nullptr && parent->digest != attributes.parent) return false;
  }
  if (attributes.index == 0) return true;
  const Block* parent = Find(attributes.parent);
  return parent == nullptr ||
         (RootOf(*parent) == attributes.root && parent->index + 1 == attributes.index);
}

Block* PrefixIndex::Add(const Digest& digest, const EntryAttributes& attributes) {
  Block* block = Find(digest);
  if (block == nullptr) block = NewBlock(digest, attributes.root, attributes.index);
  if (block->parent == 0 && attributes.index != 0) LinkToParent(block, attributes);
  return block;
}

uint32_t PrefixIndex::TakeRoot(const Digest& digest) {
  auto [it, fresh] = root_ids_.try_emplace(digest, 0);
  if (fresh) {
    // Roots are few; one that lost its last block leaves a number to use again.
    const auto unused = std::find_if(roots_.begin() + 1, roots_.end(),
                                     [](const Root& root) { return root.blocks == 0; });
    it->second = static_cast<uint32_t>(unused - roots_.begin());
    if (unused == roots_.end()) roots_.emplace_back();
    roots_[it->second].digest = digest;
  }
  ++roots_[it->second].blocks;
  return it->second;
}

Block* PrefixIndex::NewBlock(const Digest& digest, const Digest& root, uint32_t index) {
  if (free_.empty()) {
    const auto first = static_cast<BlockId>(slabs_.size() << kSlabBits);
    slabs_.push_back(std::make_unique<Block[]>(kSlabBlocks));
    // Lowest first, so that a chain that is stored at once lies together. Number 0 names no block.
    for (uint32_t i = kSlabBlocks; i-- > 0;) {
      if (first + i != 0) free_.push_back(first + i);
    }
  }
  const BlockId id = free_.back();
  free_.pop_back();
  Block* const block = At(id);
  block->digest = digest;
  block->id = id;
  block->index = index;
  block->root = TakeRoot(root);
  table_.insert(id);
  return block;
}

void PrefixIndex::DropBlock(Block* block) {
  table_.erase(block->id);
  Root& root = roots_[block->root];
  if (--root.blocks == 0) root_ids_.erase(root.digest);
  free_.push_back(block->id);
  *block = Block();
}

void PrefixIndex::LinkToParent(Block* block, const EntryAttributes& attributes) {
  Block* parent = Find(attributes.parent);
  if (parent == nullptr) parent = NewBlock(attributes.parent, attributes.root, block->index - 1);
  block->parent = parent->id;
  block->next_sibling = parent->first_child;
  if (Block* sibling = At(parent->first_child)) sibling->previous_sibling = block->id;
  parent->first_child = block->id;
}

void PrefixIndex::UnlinkFromParent(Block* block) {
  if (Block* previous = At(block->previous_sibling)) {
    previous->next_sibling = block->next_sibling;
  } else {
    At(block->parent)->first_child = block->next_sibling;
  }
  if (Block* next = At(block->next_sibling)) next->previous_sibling = block->previous_sibling;
}

void PrefixIndex::Prune(Block* block) {
  const auto needed = [](const IndexEntry& e) { return e.present() || e.held() || e.queued; };
  while (block != nullptr && block->first_child == 0 && !needed(block->rows) &&
         !needed(block->checkpoint)) {
    Block* const parent = ParentOf(*block);
    if (parent != nullptr) UnlinkFromParent(block);
    DropBlock(block);
    block = parent;
  }
}

bool PrefixIndex::Reachable(const Block& block) const {
  const Block* at = &block;
  while (at->rows.present() && at->index != 0) {
    at = ParentOf(*at);
    if (at == nullptr) return false;
  }
  return at->rows.present();
}

// ---- entries ----

// What a hit on the entry saves, and what keeping it costs. A checkpoint saves all the tokens back
// to the one before it, at the cost of its own bytes and of the rows between, which are of no use
// without it.
EntryFacts PrefixIndex::FactsOf(EntryRef ref) const {
  EntryFacts facts;
  std::memcpy(&facts.key, ref.block->digest.bytes.data(), sizeof(facts.key));
  facts.depth = ref.block->index;
  facts.kind = ref.kind;
  facts.bytes = ref->bytes;
  facts.tokens = kBlockTokens;
  const Block* above = ParentOf(*ref.block);
  if (ref.kind == EntryKind::kRows) return facts;
  facts.key = ~facts.key;
  uint64_t blocks = 1;
  while (above != nullptr && !above->checkpoint.present() && blocks < kGapBlocksMax) {
    above = ParentOf(*above);
    ++blocks;
  }
  facts.bytes += blocks * ref.block->rows.bytes;
  facts.tokens = blocks * kBlockTokens;
  return facts;
}

void PrefixIndex::Enter(EntryRef ref, Place place, bool found) {
  EntryFacts facts = FactsOf(ref);
  facts.found = found;
  const Block* const on = ref.kind == EntryKind::kCheckpoint ? ref.block : ParentOf(*ref.block);
  if (on != nullptr) facts.parent = on->rows.slot[Of(place)];
  ref->slot[Of(place)] = order_[Of(place)].Add(NumberOf(ref), facts);
  if (ref->used_ticks == 0) ref->used_ticks = Ticks(clock_.NowNanos());
}

void PrefixIndex::SetFound(EntryRef ref, Place place) { Change(ref, place, true, true); }

void PrefixIndex::SetPresent(EntryRef ref, Place place, bool present, bool evicted) {
  Change(ref, place, present, present ? false : evicted);
}

// `quietly`: coming, it was found at start; going, it was a victim.
void PrefixIndex::Change(EntryRef ref, Place place, bool present, bool quietly) {
  IndexEntry& entry = *ref;
  bool& in = entry.in[Of(place)];
  if (in == present) return;
  const bool before = entry.present();
  in = present;
  uint32_t& slot = entry.slot[Of(place)];
  if (present) {
    Enter(ref, place, quietly);
  } else {
    if (place == Place::kHost) ListQueued(slot, false);
    order_[Of(place)].Remove(slot, quietly);
    slot = 0;
    entry.evictable[Of(place)] = false;
  }
  Block* const parent = ParentOf(*ref.block);
  if (ref.kind == EntryKind::kRows && parent != nullptr) {
    uint32_t& children = parent->children_in[Of(place)];
    children = present ? children + 1 : children - 1;
    if (!before && entry.present()) ++parent->children_present;
    if (before && !entry.present()) --parent->children_present;
  }
  Refresh(ref);
  if (ref.kind == EntryKind::kCheckpoint) Refresh({ref.block, EntryKind::kRows});
  if (ref.kind == EntryKind::kRows && parent != nullptr) Refresh({parent, EntryKind::kRows});
}

void PrefixIndex::SetQueued(EntryRef ref, bool queued) {
  ref->queued = queued;
  Refresh(ref);
}

void PrefixIndex::AddLease(EntryRef ref, int change) {
  ref->leases = static_cast<uint32_t>(static_cast<int64_t>(ref->leases) + change);
  Refresh(ref);
}

void PrefixIndex::AddHold(EntryRef ref, int change) {
  ref->holds = static_cast<uint16_t>(ref->holds + change);
  Refresh(ref);
}

void PrefixIndex::AddPin(EntryRef ref, int change) {
  uint32_t& pins = pins_[ref.key()];
  pins = static_cast<uint32_t>(static_cast<int64_t>(pins) + change);
  ref->pinned = pins != 0;
  if (pins == 0) pins_.erase(ref.key());
  Refresh(ref);
}

void PrefixIndex::Touch(EntryRef ref, int64_t now_nanos) {
  ref->used_ticks = Ticks(now_nanos);
  for (size_t place = 0; place < kPlaces; ++place) {
    if (ref->slot[place] != 0) order_[place].Used(ref->slot[place]);
  }
}

uint32_t PrefixIndex::Ticks(int64_t now_nanos) const {
  return static_cast<uint32_t>((now_nanos - started_nanos_) / kTickNanos) + 1;
}

absl::Duration PrefixIndex::UnusedFor(EntryRef ref) const {
  const int64_t ticks = Ticks(clock_.NowNanos());
  return absl::Nanoseconds((ticks - ref->used_ticks) * kTickNanos);
}

void PrefixIndex::Await(const Digest& digest, int change) {
  if (change > 0) {
    awaited_[digest] += static_cast<uint32_t>(change);
  } else if (const auto it = awaited_.find(digest); it != awaited_.end()) {
    it->second -= static_cast<uint32_t>(-change);
    if (it->second == 0) awaited_.erase(it);
  }
  if (Block* block = Find(digest); block != nullptr) Refresh({block, EntryKind::kRows});
}

// ---- what may go ----

bool PrefixIndex::Evictable(EntryRef ref, Place place) const {
  if (!ref->in[Of(place)] || ref->held()) return false;
  if (ref.kind == EntryKind::kCheckpoint) return true;
  const Block& block = *ref.block;
  if (block.children_in[Of(place)] != 0 || block.checkpoint.in[Of(place)]) {
    return false;
  }
  return ref->in[Of(Other(place))] || Removable(ref);
}

bool PrefixIndex::EvictableWithAllBelow(EntryRef ref) const {
  if (!ref->in[Of(Place::kDisk)] || ref->held()) return false;
  if (ref.kind == EntryKind::kCheckpoint || ref->in[Of(Place::kHost)]) return true;
  // Its last tier: what stays in host memory, or is being made, must not build on it.
  const Block& block = *ref.block;
  return block.children_in[Of(Place::kHost)] == 0 && !block.checkpoint.in[Of(Place::kHost)] &&
         (awaited_.empty() || !awaited_.contains(block.digest));
}

bool PrefixIndex::Removable(EntryRef ref) const {
  if (ref->held()) return false;
  if (ref.kind == EntryKind::kCheckpoint) return true;
  const Block& block = *ref.block;
  return block.children_present == 0 && !block.checkpoint.present() &&
         (awaited_.empty() || !awaited_.contains(block.digest));
}

void PrefixIndex::Refresh(EntryRef ref) {
  RefreshPlace(ref, Place::kHost);
  RefreshPlace(ref, Place::kDisk);
}

void PrefixIndex::RefreshPlace(EntryRef ref, Place place) {
  const uint32_t slot = ref->slot[Of(place)];
  if (slot == 0) return;
  const bool may_go = Evictable(ref, place);
  const bool late = place == Place::kHost && ref->queued;
  if (place == Place::kHost) ListQueued(slot, may_go && late);
  bool& told = ref->evictable[Of(place)];
  if (told == (may_go && !late)) return;
  told = may_go && !late;
  // Rows that nothing is built on, and nothing resumes at, save nothing.
  if (told && ref.kind == EntryKind::kRows && !resumes_without_checkpoint_ &&
      !ref.block->checkpoint.present()) {
    order_[Of(place)].SetWorth(slot, ref->bytes, 0);
  }
  order_[Of(place)].SetEvictable(slot, told);
}

void PrefixIndex::ListQueued(uint32_t slot, bool listed) {
  if (!listed && queued_since_.empty()) return;  // as nearly always
  const auto known = queued_since_.find(slot);
  if (listed == (known != queued_since_.end())) return;
  if (listed) {
    queued_since_.emplace(slot, ++queued_count_);
    queued_.emplace(queued_count_, slot);
  } else {
    queued_.erase(known->second);
    queued_since_.erase(known);
  }
}

uint32_t PrefixIndex::SetSegment(EntryRef ref, uint32_t segment) {
  const uint32_t slot = ref->slot[Of(Place::kDisk)];
  order_[Of(Place::kDisk)].SetGroup(slot, segment);
  return slot;
}

EntryRef PrefixIndex::FindInSegment(uint32_t number, uint32_t segment) const {
  const TierOrder& order = order_[Of(Place::kDisk)];
  return order.GroupOf(number) == segment ? RefOf(order.EntryAt(number)) : EntryRef();
}

std::optional<EntryRef> PrefixIndex::Victim(Place place) {
  TierOrder& order = order_[Of(place)];
  std::optional<EntryNumber> number = order.Victim();
  if (!number.has_value() && place == Place::kHost && !queued_.empty()) {
    number = order.EntryAt(queued_.begin()->second);
  }
  if (!number.has_value()) return std::nullopt;
  return RefOf(*number);
}

// ---- walks ----

// The first block, in post-order, of the subtree under `block`.
Block* PrefixIndex::Deepest(Block* block) const {
  while (block->first_child != 0) block = At(block->first_child);
  return block;
}

void PrefixIndex::VisitSubtree(Block* top, const std::function<void(Block*)>& visit) const {
  Block* block = Deepest(top);
  while (true) {
    visit(block);
    if (block == top) return;
    block = block->next_sibling != 0 ? Deepest(At(block->next_sibling)) : ParentOf(*block);
  }
}

void PrefixIndex::VisitAll(const std::function<void(Block*)>& visit) const {
  for (const auto& slab : slabs_) {
    for (uint32_t i = 0; i < kSlabBlocks; ++i) {
      if (slab[i].root != 0) visit(&slab[i]);
    }
  }
}

uint64_t PrefixIndex::memory_bytes() const {
  const uint64_t table = table_.capacity() * (sizeof(BlockId) + 1);
  return slabs_.size() * kSlabBlocks * sizeof(Block) + free_.capacity() * sizeof(BlockId) + table +
         order_[0].memory_bytes() + order_[1].memory_bytes();
}

}  // namespace cairn::cache
