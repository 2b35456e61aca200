// compat_store.h: the small store that each released format left behind in tests/compat/<version>:
// how it is filled, and what must be found in it.
//
// Threads: one caller. Errors: those of the store and the core.
#ifndef CAIRN_TESTS_COMPAT_COMPAT_STORE_H_
#define CAIRN_TESTS_COMPAT_COMPAT_STORE_H_

#include <memory>
#include <string>
#include <vector>

#include "cache/client/cache_api.h"
#include "cache/core/cache_core.h"
#include "store/device/uring_file_system.h"
#include "store/recovery/recovery_report.h"
#include "store/tier/disk_tier.h"
#include "store/tier/host_tier.h"

namespace cairn::compat {

// A core over a real directory.
struct OpenedStore {
  store::UringFileSystem files;
  SeededRandom random{1};
  store::RecoveryReport report;
  std::unique_ptr<store::HostTier> host;
  std::unique_ptr<store::DiskTier> disk;
  std::unique_ptr<cache::CacheCore> core;
  std::unique_ptr<cache::CacheApi> cache;
};
// FAILED_PRECONDITION: of another format.
absl::StatusOr<std::unique_ptr<OpenedStore>> OpenStore(const std::string& directory);

// Three prefixes of one, two and three blocks; all are put, the last one is evicted again.
inline constexpr uint64_t kPrefixes = 3;
std::vector<Digest> PrefixChain(const Digest& root, uint64_t number);
absl::Status Fill(OpenedStore& store);
// The bytes of one whole prefix, checkpoints of all its blocks included. NOT_FOUND: it is not
// there.
absl::Status CheckPrefix(OpenedStore& store, uint64_t number);

}  // namespace cairn::compat

#endif  // CAIRN_TESTS_COMPAT_COMPAT_STORE_H_
