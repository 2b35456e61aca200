// deepseek_scanner.h: DeepSeek's three Split pre-tokenizers in one pass, without a regex engine.
//
// Cuts where the three patterns of kDeepSeekPatterns, one after another and each on the pieces of
// the one before, cut; deepseek_scanner_test.cc holds it against them. A regex engine alone does
// not reach the speed that is asked of a tokenizer.
//
// Threads: immutable. Ownership: pieces are views into the text.
#ifndef CAIRN_ENGINE_TEXT_DEEPSEEK_SCANNER_H_
#define CAIRN_ENGINE_TEXT_DEEPSEEK_SCANNER_H_

#include <array>
#include <cstdint>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "store/base/status.h"

namespace cairn::engine {

// As they stand in DeepSeek's tokenizer.json, all of behaviour Isolated.
inline constexpr std::array<std::string_view, 3> kDeepSeekPatterns = {
    R"(\p{N}{1,3})", "[\u4E00-\u9FA5\u3040-\u309F\u30A0-\u30FF]+",
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^)"
    "\r\n"
    R"(\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[)"
    "\r\n"
    R"(]*|\s*[)"
    "\r\n"
    R"(]+|\s+(?!\S)|\s+)"};

class DeepSeekScanner {
 public:
  static absl::StatusOr<DeepSeekScanner> Make();

  // Calls emit for each piece, from left to right; together they are `text`, which must be
  // well-formed UTF-8.
  void Scan(std::string_view text, absl::FunctionRef<void(std::string_view)> emit) const;

 private:
  explicit DeepSeekScanner(const uint8_t* classes) : classes_(classes) {}

  const uint8_t* classes_;
};

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_TEXT_DEEPSEEK_SCANNER_H_
