// default_paths.h: where daemon, engine and cairnctl look for each other when nobody says: a folder
// of the user's runtime directory, or of the system's.
//
// Threads: pure, but for reading the environment.
#ifndef CAIRN_CACHE_CLIENT_DEFAULT_PATHS_H_
#define CAIRN_CACHE_CLIENT_DEFAULT_PATHS_H_

#include <string>

namespace cairn::cache {

// "$XDG_RUNTIME_DIR/cairn", or "/run/cairn" where that is not set.
std::string DefaultSocketDirectory();
std::string DefaultSocket();       // .../cairn.sock, for engines
std::string DefaultAdminSocket();  // .../admin.sock, for operators

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_CLIENT_DEFAULT_PATHS_H_
