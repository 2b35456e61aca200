#include "engine/text/added_tokens.h"

#include <algorithm>

#include "engine/text/unicode_class.h"
#include "engine/text/utf8.h"

namespace cairn::engine {
namespace {

constexpr size_t kContentBytesMax = 1024;

uint64_t Edge(uint32_t node, char byte) { return uint64_t{node} << 8 | static_cast<uint8_t>(byte); }

}  // namespace

void AddedTokens::Trie::Add(std::string_view content, int32_t token) {
  first[static_cast<uint8_t>(content[0])] = true;
  uint32_t node = 0;
  for (const char byte : content) {
    const uint32_t fresh = static_cast<uint32_t>(token_of_node.size());
    const auto [it, added] = edges.try_emplace(Edge(node, byte), fresh);
    if (added) token_of_node.push_back(-1);
    node = it->second;
  }
  token_of_node[node] = token;
}

int32_t AddedTokens::Trie::Longest(std::string_view text) const {
  int32_t longest = -1;
  uint32_t node = 0;
  for (const char byte : text) {
    const auto it = edges.find(Edge(node, byte));
    if (it == edges.end()) break;
    node = it->second;
    if (token_of_node[node] >= 0) longest = token_of_node[node];
  }
  return longest;
}

absl::StatusOr<AddedTokens> AddedTokens::Make(std::vector<AddedToken> tokens) {
  AddedTokens added;
  CAIRN_ASSIGN_OR_RETURN(added.classes_, UnicodeClasses());
  for (size_t i = 0; i < tokens.size(); ++i) {
    const std::string& content = tokens[i].content;
    if (content.empty() || content.size() > kContentBytesMax) {
      return absl::InvalidArgumentError(absl::StrCat("added_tokens[", i, "].content: of ",
                                                     content.size(), " bytes; 1 to ",
                                                     kContentBytesMax, " are supported"));
    }
    (tokens[i].normalized ? added.normalized_ : added.raw_).Add(content, static_cast<int32_t>(i));
  }
  added.tokens_ = std::move(tokens);
  return added;
}

// Cuts one stretch of text by one trie.
class AddedTokens::Cutter {
 public:
  using Emit = absl::FunctionRef<void(std::optional<int32_t>, size_t, size_t)>;

  Cutter(const AddedTokens& added, const Trie& trie, std::string_view text,
         std::span<const TextRange> literal)
      : added_(added), trie_(trie), text_(text), literal_(literal) {}

  // Of [begin, end); what is beyond is not seen, as if the text ended there.
  void Cut(size_t begin, size_t end, Emit emit) const {
    size_t done = begin;
    for (size_t at = begin; at < end;) {
      if (!trie_.first[static_cast<uint8_t>(text_[at])]) {
        ++at;
        continue;
      }
      const int32_t found = trie_.Longest(text_.substr(at, end - at));
      if (found < 0) {
        ++at;
        continue;
      }
      const AddedToken& token = added_.tokens_[static_cast<size_t>(found)];
      size_t from = at, to = at + token.content.size();
      if (IsLiteral(from, to)) {
        ++at;
        continue;
      }
      at = to;
      if (from < done) continue;  // the spaces that the last one took were its beginning
      if (token.single_word && !IsWordAlone(begin, from, to, end)) continue;
      if (token.lstrip) from = SpacesBefore(done, from);
      if (token.rstrip) to = SpacesAfter(to, end);
      if (done < from) emit(std::nullopt, done, from);
      emit(token.id, from, to);
      done = to;
    }
    if (done < end) emit(std::nullopt, done, end);
  }

 private:
  bool IsLiteral(size_t from, size_t to) const {
    // The first range that ends behind `from`.
    const auto range = std::partition_point(literal_.begin(), literal_.end(),
                                            [&](const TextRange& r) { return r.end <= from; });
    return range != literal_.end() && range->begin < to;
  }

  uint8_t KindAt(size_t at, size_t end) const {
    // Cut off at `end` and broken sequences have no kind.
    const std::string_view one = text_.substr(at, std::min<size_t>(4, end - at));
    size_t bytes = 1;
    while (bytes < one.size() && (static_cast<uint8_t>(one[bytes]) & 0xC0) == 0x80) ++bytes;
    if (!IsUtf8(one.substr(0, bytes))) return 0;
    return added_.classes_[NextCodePoint(text_, at)];
  }
  size_t CharBefore(size_t begin, size_t at) const {
    do {
      --at;
    } while (at > begin && (static_cast<uint8_t>(text_[at]) & 0xC0) == 0x80);
    return at;
  }

  bool IsWordAlone(size_t begin, size_t from, size_t to, size_t end) const {
    const bool before = from > begin && (KindAt(CharBefore(begin, from), from) & kWordPart);
    const bool after = to < end && (KindAt(to, end) & kWordPart);
    return !before && !after;
  }
  size_t SpacesBefore(size_t begin, size_t at) const {
    while (at > begin) {
      const size_t before = CharBefore(begin, at);
      if (!(KindAt(before, at) & kSpace)) break;
      at = before;
    }
    return at;
  }
  size_t SpacesAfter(size_t at, size_t end) const {
    while (at < end && (KindAt(at, end) & kSpace)) NextCodePoint(text_, at);
    return at;
  }

  const AddedTokens& added_;
  const Trie& trie_;
  std::string_view text_;
  std::span<const TextRange> literal_;
};

void AddedTokens::Cut(
    std::string_view text, std::span<const TextRange> literal,
    absl::FunctionRef<void(std::optional<int32_t>, std::string_view)> emit) const {
  const Cutter raw(*this, raw_, text, literal), normalized(*this, normalized_, text, literal);
  const auto say = [&](std::optional<int32_t> id, size_t begin, size_t end) {
    emit(id, text.substr(begin, end - begin));
  };
  raw.Cut(0, text.size(), [&](std::optional<int32_t> id, size_t begin, size_t end) {
    if (id) return say(id, begin, end);
    normalized.Cut(begin, end, say);
  });
}

}  // namespace cairn::engine
