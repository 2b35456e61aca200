#include "engine/cairn_engine/embedded_cache.h"

#include <algorithm>
#include <utility>

#include "cache/core/cache_core.h"
#include "cache/core/local_cache.h"
#include "store/base/clock.h"
#include "store/base/random.h"
#include "store/tier/host_tier.h"

namespace cairn::engine {
namespace {

constexpr uint64_t kBytesMax = 4ull << 30;

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

uint64_t RoomOfBlock(const cache::LayoutDescriptor& layout) {
  uint64_t room = 0;
  for (const auto scope : {cache::LayoutScope::kPrefix, cache::LayoutScope::kTrailing}) {
    room += store::HostRoomBytes(layout.entry_bytes(scope), layout.part_bytes(scope).size());
  }
  return room;
}

}  // namespace

absl::StatusOr<std::unique_ptr<EmbeddedCache>> EmbeddedCache::Create(
    const cache::LayoutDescriptor& layout, uint64_t longest, uint64_t all) {
  // Twice: freed room lies in pieces.
  const uint64_t bytes = 2 * RoomOfBlock(layout);
  CAIRN_ASSIGN_OR_RETURN(
      std::unique_ptr<store::HostTier> host,
      store::HostTier::Create(
          {.capacity_bytes = std::max(longest * bytes, std::min(all * bytes, kBytesMax)),
           .memory = store::ArenaMemory::kAtUse}));
  cache::CacheCore::Options options;
  options.policy.full = true;
  options.eviction_host = "lru";
  CAIRN_ASSIGN_OR_RETURN(
      std::unique_ptr<cache::CacheCore> core,
      cache::CacheCore::Create(options, *host, /*disk=*/nullptr, RealClock(), SystemRandom()));
  return std::make_unique<CoreInProcess>(std::move(host), std::move(core));
}

}  // namespace cairn::engine
