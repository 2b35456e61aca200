// embedded_cache.h: a cache of this process alone, where there is no daemon: the daemon's core over
// host memory, without its sockets. The one place where the engine sees more of the cache than its
// client.
//
// Threads:   any.
// Ownership: sessions must end before it does.
// Errors:    RESOURCE_EXHAUSTED naming the size when the machine has no memory for it.
#ifndef CAIRN_ENGINE_CAIRN_ENGINE_EMBEDDED_CACHE_H_
#define CAIRN_ENGINE_CAIRN_ENGINE_EMBEDDED_CACHE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "cache/client/cache_api.h"

namespace cairn::engine {

class EmbeddedCache {
 public:
  virtual ~EmbeddedCache() = default;
  virtual absl::StatusOr<std::unique_ptr<cache::CacheApi>> Connect(
      const cache::NamespaceSpec& spec) = 0;

  struct Options {
    uint64_t bytes = 0;                   // of host memory, taken as it is used
    cache::CheckpointPolicy policy = {};  // which checkpoints it keeps
    std::string eviction;                 // of PolicyNames(); empty: cairnd's default
  };
  static absl::StatusOr<std::unique_ptr<EmbeddedCache>> Create(const Options& options);

  // Room for rows and checkpoints of so many blocks.
  static uint64_t BytesFor(const cache::LayoutDescriptor& layout, uint64_t blocks);
};

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_CAIRN_ENGINE_EMBEDDED_CACHE_H_
