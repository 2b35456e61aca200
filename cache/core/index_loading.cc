// How the index comes to know what the disk holds: all of it in the background, and at once
// whatever is asked for meanwhile.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "cache/core/residency.h"
#include "store/base/fault_point.h"

namespace cairn::cache {
namespace {

constexpr size_t kDisk = static_cast<size_t>(Place::kDisk);
constexpr size_t kEraseBatch = 1024;
// Entries indexed under one lock: some tens of microseconds.
constexpr size_t kIndexBatch = 128;
// Blocks looked up together. A chain that is not stored costs one such look.
constexpr size_t kLookupBlocks = 128;

}  // namespace

void Residency::StartLoading(bool background) {
  if (disk == nullptr) return;
  {
    MutexLock lock(&mutex);
    loading_ = true;
  }
  incomplete_.store(true, std::memory_order_release);
  if (background) {
    loader_ = std::thread([this] { Load(); });
  } else {
    Load();
  }
}

void Residency::StopLoading() {
  {
    MutexLock lock(&mutex);
    stop_loading_ = true;
  }
  if (loader_.joinable()) loader_.join();
}

void Residency::AwaitLoaded() {
  MutexLock lock(&mutex);
  while (loading_) loading_ended_.Wait(&mutex);
}

void Residency::Load() {
  std::vector<Found> batch;
  bool go_on = true;
  const absl::Status surveyed = disk->Survey([&](const EntryMeta& meta) {
    absl::StatusOr<EntryAttributes> attributes = DecodeAttributes(meta.attributes);
    if (attributes.ok()) {
      batch.push_back({meta.key, *attributes, meta.payload_bytes()});
    } else {
      counters.startup_unreadable_entries.Add();
      MutexLock lock(&mutex);
      unreadable_.push_back(meta.key);
    }
    if (batch.size() < kIndexBatch) return true;
    go_on = Index(batch);
    batch.clear();
    return go_on;
  });
  go_on = go_on && Index(batch);
  const bool whole = surveyed.ok() && go_on;
  if (!surveyed.ok()) {
    // What is not indexed is still found one by one.
    spdlog::error("the index is not complete: {}", std::string(surveyed.message()));
  }
  if (const uint64_t mended = disk->stats().mended_entries; mended != 0) {
    spdlog::warn("the catalog is damaged: {} entries were catalogued again from the segments",
                 mended);
  }
  if (whole && counters.startup_entries.value() != 0) {
    spdlog::info("indexed {} entries that the disk holds", counters.startup_entries.value());
  }
  {
    MutexLock lock(&mutex);
    loading_ = false;
    loading_ended_.SignalAll();
  }
  CAIRN_FAULT_POINT(kIndexLoaded);
  if (whole) EraseUseless();
  CAIRN_FAULT_POINT(kIndexCleaned);
}

bool Residency::Index(std::span<const Found> found) {
  MutexLock lock(&mutex);
  for (const Found& f : found) IndexOne(f);
  return !stop_loading_;
}

void Residency::IndexOne(const Found& found) {
  if (gone_.contains(found.key)) return;
  if (!index.Agrees(found.key.digest, found.attributes)) {
    unreadable_.push_back(found.key);
    counters.startup_orphan_entries.Add();
    return;
  }
  const EntryRef ref{index.Add(found.key.digest, found.attributes), found.key.kind};
  if (ref->in[kDisk]) return;
  ref->bytes = static_cast<uint32_t>(found.bytes);
  index.SetFound(ref, Place::kDisk);
  counters.startup_entries.Add();
}

void Residency::EraseUseless() {
  DiskLock disk_lock(*this);
  std::vector<EntryKey> keys;
  {
    MutexLock lock(&mutex);
    // Rows that are not there, or whose own parent never came, cut off all that is below them.
    std::vector<Block*> cut;
    index.VisitAll([&](Block* block) {
      const bool linked = block->index == 0 || index.ParentOf(*block) != nullptr;
      if (!linked || !block->rows.present()) cut.push_back(block);
    });
    std::vector<Digest> emptied;
    const auto drop = [&](EntryRef ref) {
      if (!ref->in[kDisk] || ref->held()) return;
      keys.push_back(ref.key());
      emptied.push_back(ref.block->digest);
      counters.startup_orphan_entries.Add();
      index.SetPresent(ref, Place::kDisk, false);
    };
    for (Block* top : cut) {
      index.VisitSubtree(top, [&](Block* block) {
        drop({block, EntryKind::kCheckpoint});
        drop({block, EntryKind::kRows});
      });
    }
    for (const Digest& digest : emptied) {
      if (Block* block = index.Find(digest); block != nullptr) index.Prune(block);
    }
    for (const EntryKey& key : unreadable_) {
      // One that disagreed may have been put anew since.
      Block* block = index.Find(key.digest);
      if (block == nullptr || !block->entry(key.kind).in[kDisk]) keys.push_back(key);
    }
    unreadable_.clear();
    gone_.clear();
    incomplete_.store(false, std::memory_order_release);
  }
  for (size_t i = 0; i < keys.size(); i += kEraseBatch) {
    const auto batch =
        std::span<const EntryKey>(keys).subspan(i, std::min(kEraseBatch, keys.size() - i));
    if (const absl::Status erased = disk->Erase(batch); !erased.ok()) {
      spdlog::warn("{} entries that nothing can reach stay on disk: {}", keys.size() - i,
                   std::string(erased.message()));
      return;
    }
  }
}

void Residency::BringIn(const Digest& root, std::span<const Digest> chain) {
  size_t known = 0;
  while (known < chain.size()) {
    {
      MutexLock lock(&mutex);
      while (known < chain.size()) {
        Block* block = index.Find(chain[known]);
        if (block == nullptr || !block->rows.present()) break;
        ++known;
      }
    }
    const auto asked = chain.subspan(known, std::min(kLookupBlocks, chain.size() - known));
    std::vector<EntryKey> keys;
    for (const Digest& digest : asked) {
      keys.push_back({digest, EntryKind::kRows});
      keys.push_back({digest, EntryKind::kCheckpoint});
    }
    const std::vector<std::optional<EntryMeta>> metas = disk->FindMany(keys);
    std::vector<Found> found;
    for (size_t i = 0; i < keys.size(); ++i) {
      const bool is_rows = keys[i].kind == EntryKind::kRows;
      if (!metas[i].has_value()) {
        if (is_rows) break;
        continue;
      }
      const absl::StatusOr<EntryAttributes> attributes = DecodeAttributes(metas[i]->attributes);
      if (!attributes.ok() || attributes->root != root) break;
      found.push_back({keys[i], *attributes, metas[i]->payload_bytes()});
    }
    const bool more = !found.empty() && known + asked.size() < chain.size() &&
                      found.back().key.digest == asked.back();
    Index(found);
    if (!more) return;
    known += asked.size();
  }
}

}  // namespace cairn::cache
