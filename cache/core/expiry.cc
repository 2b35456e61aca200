#include "cache/core/expiry.h"

#include <spdlog/spdlog.h>

#include <vector>

namespace cairn::cache {
namespace {

// A step holds the index for a good ten microseconds; a round of a million blocks takes 2,000.
constexpr BlockId kBlocksAStep = 512;

}  // namespace

bool Expiry::Past(Block& block) const {
  if (!any_ || !block.checkpoint.present() || block.checkpoint.held()) return false;
  const absl::Duration ttl = policy_.TtlAt(uint64_t{block.index} + 1, block.is_branch());
  return residency_.index.UnusedFor({&block, EntryKind::kCheckpoint}) > ttl;
}

void Expiry::Step() {
  if (!any_) return;
  std::vector<EntryKey> on_disk;
  {
    MutexLock lock(&residency_.mutex);
    PrefixIndex& index = residency_.index;
    for (BlockId i = 0; i < kBlocksAStep; ++i) {
      if (next_ >= index.block_end()) next_ = 0;
      Block* const block = index.BlockAt(next_++);
      if (block == nullptr || !Past(*block)) continue;
      const EntryRef ref{block, EntryKind::kCheckpoint};
      if (ref->in[static_cast<size_t>(Place::kDisk)]) on_disk.push_back(ref.key());
      residency_.DropHost(ref);
      residency_.DropDisk(ref);
      residency_.counters.expired_entries.Add();
      index.Prune(block);
    }
  }
  if (on_disk.empty()) return;
  if (const absl::Status erased = residency_.disk->Erase(on_disk); !erased.ok()) {
    // The index forgot them; the catalog shows them again at the next start.
    spdlog::warn("expired checkpoints stay on disk: {}", erased.ToString());
  }
}

}  // namespace cairn::cache
