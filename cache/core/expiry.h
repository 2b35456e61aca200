// expiry.h: checkpoints end when nobody used them for as long as the policy keeps them
// (CheckpointPolicy's TTLs).
//
// One that is past its time is not served from that instant. It leaves its tiers lazily: whoever
// writes to disk looks at some blocks more each time, round after round, so room comes back where
// room is taken. A put of the same checkpoint makes it young again. Of earlier use nothing is
// stored, so after a restart all are as if just used.
//
// Threads: as annotated. Units: blocks.
#ifndef CAIRN_CACHE_CORE_EXPIRY_H_
#define CAIRN_CACHE_CORE_EXPIRY_H_

#include "absl/base/thread_annotations.h"
#include "cache/client/cache_api.h"
#include "cache/core/residency.h"

namespace cairn::cache {

class Expiry {
 public:
  Expiry(Residency& residency, const CheckpointPolicy& policy)
      : residency_(residency), policy_(policy), any_(policy.has_ttl()) {}

  // Whether the block's checkpoint, if it has one, is past its time. What is leased, pinned or in
  // work is not.
  bool Past(Block& block) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex);
  // Looks at the next blocks and takes what is past its time out of both tiers.
  void Step() ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.disk_mutex)
      ABSL_LOCKS_EXCLUDED(residency_.mutex);

 private:
  Residency& residency_;
  const CheckpointPolicy policy_;
  const bool any_;
  BlockId next_ ABSL_GUARDED_BY(residency_.mutex) = 0;
};

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_CORE_EXPIRY_H_
