#include "engine/cairn_engine/cache_tls.h"

#include <CLI/CLI.hpp>
#include <utility>

namespace cairn::engine {

void AddCacheTlsOptions(CLI::App* app, CacheTls& tls) {
  app->add_option(
      "--cache-ca", tls.authorities,
      "PEM file: TLS with a daemon at HOST:PORT whose certificate these authorities gave");
  app->add_option("--cache-cert", tls.certificate,
                  "PEM file: the engine's own, if it is asked for");
  app->add_option("--cache-key", tls.key, "PEM file: its key");
}

absl::StatusOr<std::optional<store::TlsCredentials>> ReadCacheTls(const CacheTls& tls) {
  if (tls.authorities.empty()) {
    if (tls.certificate.empty() && tls.key.empty()) return std::nullopt;
    return absl::InvalidArgumentError("--cache-cert and --cache-key need --cache-ca");
  }
  if (tls.certificate.empty() != tls.key.empty()) {
    return absl::InvalidArgumentError("--cache-cert and --cache-key go together");
  }
  return store::ReadTls(tls.certificate, tls.key, tls.authorities);
}

absl::StatusOr<std::unique_ptr<cache::CacheApi>> ConnectCache(const std::string& target,
                                                              const cache::NamespaceSpec& spec,
                                                              cache::RemoteCacheOptions options,
                                                              const CacheTls& tls) {
  CAIRN_ASSIGN_OR_RETURN(options.tls, ReadCacheTls(tls));
  return cache::ConnectCache(target, spec, options);
}

}  // namespace cairn::engine
