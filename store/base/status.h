// status.h: the one way errors travel. absl::Status by value; these macros return early.
//
// The vocabulary is closed, by what the caller does next:
//   NOT_FOUND            never used for a miss (a miss is a value: std::optional or a count of
//   zero) INVALID_ARGUMENT     the caller's bytes are wrong; the message names the field and the
//   bound FAILED_PRECONDITION  refused until somebody acts (layout version, directory in use)
//   RESOURCE_EXHAUSTED   evict or wait, then retry (arena full, disk full, too many leases)
//   DATA_LOSS            stored bytes do not match their checksum; treat as a miss, already counted
//   UNAVAILABLE          the peer or device is gone; go on without it
//   DEADLINE_EXCEEDED    the bounded wait is over
//   ALREADY_EXISTS       the entry is there already; entries are immutable, so this is success for
//   a put ABORTED              the reservation or lease ended under the caller INTERNAL a broken
//   invariant of ours
#ifndef CAIRN_STORE_BASE_STATUS_H_
#define CAIRN_STORE_BASE_STATUS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

#define CAIRN_RETURN_IF_ERROR(expr)                                 \
  do {                                                              \
    if (absl::Status cairn_status_ = (expr); !cairn_status_.ok()) { \
      return cairn_status_;                                         \
    }                                                               \
  } while (false)

#define CAIRN_CONCAT_INNER_(a, b) a##b
#define CAIRN_CONCAT_(a, b) CAIRN_CONCAT_INNER_(a, b)
#define CAIRN_ASSIGN_OR_RETURN(lhs, expr) \
  CAIRN_ASSIGN_OR_RETURN_IMPL_(CAIRN_CONCAT_(cairn_statusor_, __LINE__), lhs, expr)
#define CAIRN_ASSIGN_OR_RETURN_IMPL_(tmp, lhs, expr) \
  auto tmp = (expr);                                 \
  if (!tmp.ok()) {                                   \
    return std::move(tmp).status();                  \
  }                                                  \
  lhs = std::move(tmp).value()

#endif  // CAIRN_STORE_BASE_STATUS_H_
