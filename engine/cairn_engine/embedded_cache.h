// embedded_cache.h: a cache of this process alone, for `verify` where there is no daemon: the
// daemon's core over host memory, without its sockets. The one place where the engine sees more of
// the cache than its client.
//
// Threads:   any.
// Ownership: sessions must end before it does.
// Errors:    RESOURCE_EXHAUSTED naming the size when the machine has no memory for it.
#ifndef CAIRN_ENGINE_CAIRN_ENGINE_EMBEDDED_CACHE_H_
#define CAIRN_ENGINE_CAIRN_ENGINE_EMBEDDED_CACHE_H_

#include <cstdint>
#include <memory>

#include "cache/client/cache_api.h"

namespace cairn::engine {

class EmbeddedCache {
 public:
  virtual ~EmbeddedCache() = default;
  virtual absl::StatusOr<std::unique_ptr<cache::CacheApi>> Connect(
      const cache::NamespaceSpec& spec) = 0;

  // With room for rows and checkpoints of `all` blocks, but no more than 4 GiB, unless the
  // `longest` prefix needs it. Memory is taken as it is used.
  static absl::StatusOr<std::unique_ptr<EmbeddedCache>> Create(
      const cache::LayoutDescriptor& layout, uint64_t longest, uint64_t all);
};

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_CAIRN_ENGINE_EMBEDDED_CACHE_H_
