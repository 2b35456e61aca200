// bytes_text.h: sizes and rates as people write them.
//
// Threads: pure functions. Units: bytes, and bytes a second. Errors: INVALID_ARGUMENT says what it
// may be.
#ifndef CAIRN_STORE_BASE_BYTES_TEXT_H_
#define CAIRN_STORE_BASE_BYTES_TEXT_H_

#include <cstdint>
#include <string>

#include "store/base/status.h"

namespace cairn {

// "512", "64KiB", "1.5GiB", "10GB". Binary and decimal units.
absl::StatusOr<uint64_t> ParseBytes(const std::string& text);
// The same, with "/s" behind it or not; at least one byte.
absl::StatusOr<uint64_t> ParseByteRate(const std::string& text);

}  // namespace cairn

#endif  // CAIRN_STORE_BASE_BYTES_TEXT_H_
