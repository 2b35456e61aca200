// bpe.h: byte-level byte-pair encoding: a word's bytes to token ids by ranked merges.
//
// A word starts as its bytes; the pair of lowest rank is merged, the leftmost of equal ones, until
// no pair has a merge. O(n log n) in the word's length, whatever the word.
//
// Threads:   a Bpe is immutable; a BpeScratch belongs to one call at a time.
// Ownership: ids are appended to the caller's vector.
// Errors:    none: every word has an encoding.
#ifndef CAIRN_ENGINE_TEXT_BPE_H_
#define CAIRN_ENGINE_TEXT_BPE_H_

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "store/base/status.h"

namespace cairn::engine {

// Memory reused from word to word, and the words met lately with their ids: fixed in size (2
// MiB), so that no text can make it grow. Short words in short ids only; of two words in one slot
// the later one stays. What is encoded does not depend on what is cached.
class BpeScratch {
 public:
  BpeScratch() : slots_(kSlots) {}

 private:
  friend class Bpe;
  static constexpr size_t kSlots = 1 << 15;
  static constexpr size_t kWordBytes = 24, kWordIds = 7;

  struct alignas(64) Slot {  // one cache line
    char word[kWordBytes];
    uint8_t bytes = 0, ids = 0;
    int32_t id[kWordIds];
  };
  // A token so far; neighbours by index.
  struct Symbol {
    int32_t id;
    uint32_t before, after;
  };
  struct Candidate {
    uint32_t rank, at;
    uint64_t pair;
    int32_t id;
  };

  std::vector<Slot> slots_;
  std::vector<Symbol> symbols_;
  std::vector<Candidate> heap_;
};

class Bpe {
 public:
  // `byte_ids`: the token of each byte. `whole_words` (the file's ignore_merges): a word that is a
  // token is that token, even where merges would not lead to it.
  Bpe(const std::array<int32_t, 256>& byte_ids,
      absl::flat_hash_map<std::string, int32_t> whole_words)
      : byte_ids_(byte_ids), whole_words_(std::move(whole_words)) {}

  // Of the next rank: `left` and `right` become `id`.
  void AddMerge(int32_t left, int32_t right, int32_t id) {
    merges_[Pair(left, right)] = {rank_++, id};
  }

  // `word` is shorter than 4 GiB.
  void Encode(std::string_view word, BpeScratch& scratch, std::vector<int32_t>& ids) const;

 private:
  struct Merge {
    uint32_t rank;
    int32_t id;
  };
  static uint64_t Pair(int32_t left, int32_t right) {
    return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
  }
  void MergeWord(std::string_view word, BpeScratch& scratch, std::vector<int32_t>& ids) const;
  void Consider(uint32_t at, BpeScratch& scratch) const;

  std::array<int32_t, 256> byte_ids_;
  absl::flat_hash_map<std::string, int32_t> whole_words_;
  absl::flat_hash_map<uint64_t, Merge> merges_;
  uint32_t rank_ = 0;
};

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_TEXT_BPE_H_
