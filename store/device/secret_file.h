// secret_file.h: small files that hold secrets.
//
// Threads: pure functions.
// Errors:  FAILED_PRECONDITION: others than its owner may use the file. INVALID_ARGUMENT: it is
//          over 1 MiB. UNAVAILABLE: it cannot be read.
#ifndef CAIRN_STORE_DEVICE_SECRET_FILE_H_
#define CAIRN_STORE_DEVICE_SECRET_FILE_H_

#include <optional>
#include <string>

#include "store/base/status.h"

namespace cairn::store {

// nullopt: there is no such file.
absl::StatusOr<std::optional<std::string>> ReadSecret(const std::string& path);

}  // namespace cairn::store

#endif  // CAIRN_STORE_DEVICE_SECRET_FILE_H_
