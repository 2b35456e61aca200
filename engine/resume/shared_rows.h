// shared_rows.h: row blocks that several sequences of this process have in common, each once in
// memory. A whole block is a function of its name (the digest binds model, tenant and tokens) and
// is never written again, so it can be read by all; what a sequence adds goes into its own blocks.
//
// Threads:   any.
// Ownership: a block lives as long as a sequence holds it. Blocks may outlive this.
// Units:     bytes.
#ifndef CAIRN_ENGINE_RESUME_SHARED_ROWS_H_
#define CAIRN_ENGINE_RESUME_SHARED_ROWS_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "cache/client/cache_api.h"
#include "store/base/digest.h"
#include "store/base/mutex.h"
#include "store/base/status.h"

namespace cairn::engine {

class SharedRows {
 public:
  using Block = std::shared_ptr<const std::vector<uint8_t>>;

  // Null: no sequence holds it.
  Block Find(const Digest& digest) const;
  // The block that all use from now on: this one, or that of somebody who was faster.
  Block Add(const Digest& digest, std::vector<uint8_t> bytes);
  // Of the blocks that are held.
  int64_t bytes() const { return bytes_->load(); }

 private:
  void DropDeadLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  mutable Mutex mutex_;
  absl::flat_hash_map<Digest, std::weak_ptr<const std::vector<uint8_t>>> blocks_
      ABSL_GUARDED_BY(mutex_);
  size_t look_at_ ABSL_GUARDED_BY(mutex_) = 64;  // so many names, and dead ones are looked for
  const std::shared_ptr<std::atomic<int64_t>> bytes_ = std::make_shared<std::atomic<int64_t>>(0);
};

// A mapped block's rows in memory of this process: those of `shared`, if it has them or is to get
// them, else a copy for one sequence (`shared` null). DATA_LOSS: the entry was taken back.
absl::StatusOr<SharedRows::Block> CopyMappedRows(const cache::EntryView& entry,
                                                 const Digest& digest, SharedRows* shared);

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_RESUME_SHARED_ROWS_H_
