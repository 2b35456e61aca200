// cache_tls.h: the files for TLS with a daemon on another host, as the commands' flags name them,
// and connecting with them.
//
// Threads: any. Errors: ConnectCache as cache/client/remote_cache.h; NOT_FOUND naming the file;
// INVALID_ARGUMENT: flags that need others.
#ifndef CAIRN_ENGINE_CAIRN_ENGINE_CACHE_TLS_H_
#define CAIRN_ENGINE_CAIRN_ENGINE_CACHE_TLS_H_

#include <memory>
#include <optional>
#include <string>

#include "cache/client/remote_cache.h"

namespace CLI {
class App;
}

namespace cairn::engine {

struct CacheTls {
  std::string authorities = {};  // files; empty: no TLS
  std::string certificate = {};
  std::string key = {};
};

void AddCacheTlsOptions(CLI::App* app, CacheTls& tls);
absl::StatusOr<std::optional<store::TlsCredentials>> ReadCacheTls(const CacheTls& tls);
// ConnectCache with what the files hold now: certificates are renewed under running engines.
absl::StatusOr<std::unique_ptr<cache::CacheApi>> ConnectCache(const std::string& target,
                                                              const cache::NamespaceSpec& spec,
                                                              cache::RemoteCacheOptions options,
                                                              const CacheTls& tls);

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_CAIRN_ENGINE_CACHE_TLS_H_
