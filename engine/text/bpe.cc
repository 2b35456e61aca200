#define XXH_INLINE_ALL
#include "engine/text/bpe.h"

#include <xxhash.h>

#include <algorithm>
#include <cstring>

namespace cairn::engine {
namespace {

constexpr uint32_t kNone = ~uint32_t{0};

}  // namespace

void Bpe::Encode(std::string_view word, BpeScratch& scratch, std::vector<int32_t>& ids) const {
  if (word.size() > BpeScratch::kWordBytes) return MergeWord(word, scratch, ids);
  const uint64_t hash = XXH3_64bits(word.data(), word.size());
  BpeScratch::Slot& slot = scratch.slots_[hash % BpeScratch::kSlots];
  if (slot.bytes == word.size() && std::memcmp(slot.word, word.data(), word.size()) == 0) {
    ids.insert(ids.end(), slot.id, slot.id + slot.ids);
    return;
  }
  const size_t before = ids.size();
  MergeWord(word, scratch, ids);
  const size_t made = ids.size() - before;
  if (made > BpeScratch::kWordIds) return;
  slot.bytes = static_cast<uint8_t>(word.size());
  slot.ids = static_cast<uint8_t>(made);
  std::memcpy(slot.word, word.data(), word.size());
  std::copy_n(ids.data() + before, made, slot.id);
}

// Puts the pair that begins with symbol `at` on the heap, if it has a merge.
void Bpe::Consider(uint32_t at, BpeScratch& scratch) const {
  const auto& symbols = scratch.symbols_;
  if (at == kNone || symbols[at].after == kNone) return;
  const uint64_t pair = Pair(symbols[at].id, symbols[symbols[at].after].id);
  const auto it = merges_.find(pair);
  if (it == merges_.end()) return;
  scratch.heap_.push_back({it->second.rank, at, pair, it->second.id});
}

void Bpe::MergeWord(std::string_view word, BpeScratch& scratch, std::vector<int32_t>& ids) const {
  if (!whole_words_.empty()) {
    if (const auto it = whole_words_.find(absl::string_view(word.data(), word.size()));
        it != whole_words_.end()) {
      ids.push_back(it->second);
      return;
    }
  }
  auto& symbols = scratch.symbols_;
  auto& heap = scratch.heap_;
  const uint32_t n = static_cast<uint32_t>(word.size());
  symbols.clear();
  heap.clear();
  for (uint32_t i = 0; i < n; ++i) {
    symbols.push_back({byte_ids_[static_cast<uint8_t>(word[i])], i - 1, i + 1 < n ? i + 1 : kNone});
  }
  const auto later = [](const BpeScratch::Candidate& a, const BpeScratch::Candidate& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.at > b.at;
  };
  for (uint32_t i = 0; i < n; ++i) Consider(i, scratch);
  std::make_heap(heap.begin(), heap.end(), later);
  while (!heap.empty()) {
    const BpeScratch::Candidate best = heap.front();
    std::pop_heap(heap.begin(), heap.end(), later);
    heap.pop_back();
    BpeScratch::Symbol& left = symbols[best.at];
    // The pair may be gone: one of its two has been merged since. A merged right half has no id.
    if (left.after == kNone || Pair(left.id, symbols[left.after].id) != best.pair) continue;
    BpeScratch::Symbol& right = symbols[left.after];
    left.id = best.id;
    left.after = right.after;
    right.id = -1;
    if (left.after != kNone) symbols[left.after].before = best.at;
    for (const uint32_t at : {left.before, best.at}) {
      const size_t candidates = heap.size();
      Consider(at, scratch);
      if (heap.size() > candidates) std::push_heap(heap.begin(), heap.end(), later);
    }
  }
  for (uint32_t i = 0; i != kNone && i < n; i = symbols[i].after) ids.push_back(symbols[i].id);
}

}  // namespace cairn::engine
