// come_again.h: a RESOURCE_EXHAUSTED that passes by itself, with when it is worth trying again. It
// travels with the Status (and over the wire as the pushback of gRPC's retry design A6), so that a
// caller need not read the message.
//
// Threads: pure functions. Units: whole milliseconds, at least one.
#ifndef CAIRN_STORE_BASE_COME_AGAIN_H_
#define CAIRN_STORE_BASE_COME_AGAIN_H_

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"

namespace cairn {

inline constexpr char kComeAgainPayload[] = "cairn/come-again-ms";

inline absl::Status ComeAgainIn(absl::Duration wait, const std::string& why) {
  const int64_t millis =
      std::max<int64_t>(1, absl::ToInt64Milliseconds(absl::Ceil(wait, absl::Milliseconds(1))));
  absl::Status status =
      absl::ResourceExhaustedError(absl::StrCat(why, ": come again in ", millis, " ms"));
  status.SetPayload(kComeAgainPayload, absl::Cord(absl::StrCat(millis)));
  return status;
}

// Nothing: trying again is of no use until somebody acts.
inline std::optional<absl::Duration> ComeAgainOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kComeAgainPayload);
  int64_t millis = 0;
  if (!payload.has_value() || !absl::SimpleAtoi(std::string(*payload), &millis)) {
    return std::nullopt;
  }
  return absl::Milliseconds(millis);
}

}  // namespace cairn

#endif  // CAIRN_STORE_BASE_COME_AGAIN_H_
