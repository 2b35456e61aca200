// unicode_class.h: which kinds a code point is of, as one table lookup.
//
// The table is filled by PCRE2 itself, so what is decided by it is what a pattern would decide; its
// Unicode version is PCRE2's. Built at first use (about 30 ms, 1.1 MB), for the whole process.
//
// Threads: any. Errors: INVALID_ARGUMENT where this PCRE2 lacks a property.
#ifndef CAIRN_ENGINE_TEXT_UNICODE_CLASS_H_
#define CAIRN_ENGINE_TEXT_UNICODE_CLASS_H_

#include <cstdint>

#include "store/base/status.h"

namespace cairn::engine {

inline constexpr uint8_t kLetterOrMark = 1;   // [\p{L}\p{M}]
inline constexpr uint8_t kPunctOrSymbol = 2;  // [\p{P}\p{S}]
inline constexpr uint8_t kNumber = 4;         // \p{N}
inline constexpr uint8_t kSpace = 8;          // \s
inline constexpr uint8_t kWordPart = 16;      // what \w is to the tokenizers library
inline constexpr uint8_t kUnassigned = 32;    // \p{Cn}

inline constexpr char32_t kCodePoints = 0x110000;

// Indexed by code point, kCodePoints long; surrogates have none of the bits.
absl::StatusOr<const uint8_t*> UnicodeClasses();

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_TEXT_UNICODE_CLASS_H_
