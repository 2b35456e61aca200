#include "engine/cairn_engine/embedded_cache.h"

#include <utility>

#include "cache/core/cache_core.h"
#include "cache/core/local_cache.h"
#include "store/base/clock.h"
#include "store/base/random.h"
#include "store/tier/host_tier.h"

namespace cairn::engine {
namespace {

class CoreInProcess final : public EmbeddedCache {
 public:
  CoreInProcess(std::unique_ptr<store::HostTier> host, std::unique_ptr<cache::CacheCore> core)
      : host_(std::move(host)), core_(std::move(core)) {}
  absl::StatusOr<std::unique_ptr<cache::CacheApi>> Connect(
      const cache::NamespaceSpec& spec) override {
    return cache::OpenLocalCache(*core_, spec);
  }

 private:
  const std::unique_ptr<store::HostTier> host_;
  const std::unique_ptr<cache::CacheCore> core_;
};

}  // namespace

uint64_t EmbeddedCache::BytesFor(const cache::LayoutDescriptor& layout, uint64_t blocks) {
  uint64_t room = 0;
  for (const auto scope : {cache::LayoutScope::kPrefix, cache::LayoutScope::kTrailing}) {
    room += store::HostRoomBytes(layout.entry_bytes(scope), layout.part_bytes(scope).size());
  }
  return 2 * room * blocks;  // freed room lies in pieces
}

absl::StatusOr<std::unique_ptr<EmbeddedCache>> EmbeddedCache::Create(const Options& options) {
  CAIRN_ASSIGN_OR_RETURN(std::unique_ptr<store::HostTier> host,
                         store::HostTier::Create({.capacity_bytes = options.bytes,
                                                  .memory = store::ArenaMemory::kAtUse}));
  cache::CacheCore::Options core_options;
  core_options.policy = options.policy;
  if (!options.eviction.empty()) core_options.eviction_host = options.eviction;
  CAIRN_ASSIGN_OR_RETURN(
      std::unique_ptr<cache::CacheCore> core,
      cache::CacheCore::Create(core_options, *host, /*disk=*/nullptr, RealClock(), SystemRandom()));
  return std::make_unique<CoreInProcess>(std::move(host), std::move(core));
}

}  // namespace cairn::engine
