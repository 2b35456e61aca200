#include "engine/resume/shared_rows.h"

#include <algorithm>
#include <utility>

namespace cairn::engine {

SharedRows::Block SharedRows::Find(const Digest& digest) const {
  const MutexLock lock(&mutex_);
  const auto found = blocks_.find(digest);
  return found == blocks_.end() ? nullptr : found->second.lock();
}

SharedRows::Block SharedRows::Add(const Digest& digest, std::vector<uint8_t> bytes) {
  const auto size = static_cast<int64_t>(bytes.size());
  const MutexLock lock(&mutex_);
  std::weak_ptr<const std::vector<uint8_t>>& place = blocks_[digest];
  if (Block there = place.lock()) return there;
  *bytes_ += size;
  Block made(new std::vector<uint8_t>(std::move(bytes)),
             [counted = bytes_, size](const std::vector<uint8_t>* dead) {
               delete dead;
               *counted -= size;
             });
  place = made;
  if (blocks_.size() >= look_at_) DropDeadLocked();
  return made;
}

// Names cost little; they are dropped when there are twice as many as there were blocks.
void SharedRows::DropDeadLocked() {
  absl::erase_if(blocks_, [](const auto& named) { return named.second.expired(); });
  look_at_ = std::max<size_t>(2 * blocks_.size(), 64);
}

absl::StatusOr<SharedRows::Block> CopyMappedRows(const cache::EntryView& entry,
                                                 const Digest& digest, SharedRows* shared) {
  SharedRows::Block there = shared == nullptr ? nullptr : shared->Find(digest);
  if (there != nullptr) {
    // Those that the session computed from are these, to the byte.
    if (std::equal(there->begin(), there->end(), entry.payload.begin(), entry.payload.end())) {
      return there;
    }
    return absl::DataLossError("the mapped rows are not those of their name");
  }
  std::vector<uint8_t> bytes(entry.payload.size());
  CAIRN_RETURN_IF_ERROR(entry.CopyOut(bytes));
  if (shared != nullptr) return shared->Add(digest, std::move(bytes));
  return std::make_shared<const std::vector<uint8_t>>(std::move(bytes));
}

}  // namespace cairn::engine
