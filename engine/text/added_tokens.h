// added_tokens.h: a tokenizer file's `added_tokens`, found in text before anything else is done.
//
// As the tokenizers library does it: the tokens with normalized=false first, then, in what is left,
// the others; of those that begin at the same place the longest; lstrip and rstrip take the white
// space beside a token into it; single_word tokens count only where no word goes on beside them.
//
// Threads:   immutable once filled.
// Ownership: pieces are views into the text.
// Errors:    Add: INVALID_ARGUMENT. Cutting cannot fail.
#ifndef CAIRN_ENGINE_TEXT_ADDED_TOKENS_H_
#define CAIRN_ENGINE_TEXT_ADDED_TOKENS_H_

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "engine/text/tokenizer.h"
#include "store/base/status.h"

namespace cairn::engine {

struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool single_word = false, lstrip = false, rstrip = false, normalized = false;
};

class AddedTokens {
 public:
  static absl::StatusOr<AddedTokens> Make(std::vector<AddedToken> tokens);

  // Calls emit(id, piece) for each token and emit(nullopt, piece) for the text between, left to
  // right. A token that would begin or end within one of `literal` (sorted, not overlapping) is
  // text. `text` need not be well-formed.
  void Cut(std::string_view text, std::span<const TextRange> literal,
           absl::FunctionRef<void(std::optional<int32_t>, std::string_view)> emit) const;

 private:
  // Tokens by their bytes: node 0 is the root; the edge of (node, byte) leads to a node.
  struct Trie {
    std::array<bool, 256> first{};
    absl::flat_hash_map<uint64_t, uint32_t> edges;
    std::vector<int32_t> token_of_node{-1};  // index into tokens_, or -1

    void Add(std::string_view content, int32_t token);
    int32_t Longest(std::string_view text) const;
  };
  class Cutter;

  std::vector<AddedToken> tokens_;
  Trie raw_, normalized_;
  const uint8_t* classes_ = nullptr;
};

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_TEXT_ADDED_TOKENS_H_
