// secrets.h: the tenants' keys, which are mixed into every namespace's root. Whoever can read one
// can compute its prefixes' names, so the files must not be readable by others.
//
// Threads: called alone at start. Units: keys are bytes; at least 16 of them.
// Errors:  FAILED_PRECONDITION: a file that others may read. INVALID_ARGUMENT: a line that is none,
// naming its number.
#ifndef CAIRN_CACHE_DAEMON_SECRETS_H_
#define CAIRN_CACHE_DAEMON_SECRETS_H_

#include <map>
#include <string>

#include "store/base/random.h"
#include "store/base/status.h"

namespace cairn::cache {

// The default tenant's key: read from `path`, or made (32 random bytes, mode 0600, durable) where
// there is none, so that names stay the same over restarts.
absl::StatusOr<std::string> LoadOrMakeKey(const std::string& path, Random& random);

// "name=key" a line; '#' begins a comment. A key of an even number of 32 or more hexadecimal digits
// is taken as those bytes.
absl::StatusOr<std::map<std::string, std::string>> LoadTenantKeys(const std::string& path);

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_DAEMON_SECRETS_H_
