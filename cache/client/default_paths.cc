#include "cache/client/default_paths.h"

#include <cstdlib>

namespace cairn::cache {

std::string DefaultSocketDirectory() {
  const char* runtime = std::getenv("XDG_RUNTIME_DIR");
  return (runtime == nullptr || *runtime == '\0' ? std::string("/run") : std::string(runtime)) +
         "/cairn";
}

std::string DefaultSocket() { return DefaultSocketDirectory() + "/cairn.sock"; }

std::string DefaultAdminSocket() { return DefaultSocketDirectory() + "/admin.sock"; }

}  // namespace cairn::cache
