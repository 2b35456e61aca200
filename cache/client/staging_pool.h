// staging_pool.h: staging memory that daemon and client share. Pieces are made and handed over once
// and then cut into buffers again and again: making a memfd and touching it first costs more than
// filling it.
//
// Threads:   any.
// Ownership: buffers keep their piece alive and may outlive the pool.
// Units:     bytes, in whole kIoAlignment units.
// Errors:    RESOURCE_EXHAUSTED at the limit: drop buffers whose commit is over, then retry.
#ifndef CAIRN_CACHE_CLIENT_STAGING_POOL_H_
#define CAIRN_CACHE_CLIENT_STAGING_POOL_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>

#include "cache/client/cache_api.h"
#include "store/base/status.h"

namespace cairn::cache {

// Where a buffer lies, as commits name it.
class PooledStaging : public StagingBuffer {
 public:
  uint32_t piece = 0;
  uint64_t offset = 0;
};

class StagingPool {
 public:
  struct Options {
    uint64_t piece_bytes = 16ull << 20;  // the least that is made at once
    uint64_t bytes_max = 1ull << 30;
    uint32_t pieces_max = 64;
  };
  // Hands a piece over and returns the daemon's id of it.
  using Give = std::function<absl::StatusOr<uint32_t>(int descriptor, uint64_t bytes)>;

  StagingPool(const Options& options, Give give);
  ~StagingPool();

  absl::StatusOr<std::unique_ptr<PooledStaging>> Take(uint64_t bytes);

  struct Shared;  // also held by every buffer

 private:
  const Options options_;
  const Give give_;
  std::mutex growing_;  // one piece is made at a time, without holding up returns
  std::shared_ptr<Shared> shared_;
};

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_CLIENT_STAGING_POOL_H_
