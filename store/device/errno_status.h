// errno_status.h: what a failed system call means in the vocabulary of store/base/status.h.
//
// Threads: pure functions.
#ifndef CAIRN_STORE_DEVICE_ERRNO_STATUS_H_
#define CAIRN_STORE_DEVICE_ERRNO_STATUS_H_

#include <string>

#include "store/base/status.h"

namespace cairn::store {

// "<what> <path>: <text of the error>". No room (disk, quota, memory, descriptors) is
// RESOURCE_EXHAUSTED; no permission, read-only or the wrong kind of file is FAILED_PRECONDITION;
// absent is NOT_FOUND; there already is ALREADY_EXISTS; anything else is a device or peer that is
// gone: UNAVAILABLE. REQUIRES: error > 0.
absl::Status ErrnoStatus(int error, const std::string& what, const std::string& path);

}  // namespace cairn::store

#endif  // CAIRN_STORE_DEVICE_ERRNO_STATUS_H_
