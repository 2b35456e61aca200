#include "store/index/memory_catalog.h"

#include "store/index/catalog_codec.h"

namespace cairn::store {

void MemoryCatalogDisk::ApplyTo(Pairs& pairs, const std::vector<Change>& changes) {
  for (const Change& change : changes) {
    if (change.value.has_value()) {
      pairs[change.key] = *change.value;
    } else {
      pairs.erase(change.key);
    }
  }
}

std::vector<MemoryCatalogDisk::Change> MemoryCatalogDisk::ChangesOf(const CatalogBatch& batch) {
  std::vector<Change> changes;
  for (const CatalogEntry& entry : batch.puts) {
    changes.push_back({EncodeEntryKey(entry.meta.key), EncodeEntryValue(entry)});
  }
  for (const EntryKey& key : batch.erases) {
    changes.push_back({EncodeEntryKey(key), std::nullopt});
  }
  for (const auto& [name, value] : batch.values) changes.push_back({EncodeValueKey(name), value});
  return changes;
}

void MemoryCatalogDisk::SyncAll() {
  for (const std::vector<Change>& earlier : unsynced_) ApplyTo(synced_, earlier);
  unsynced_.clear();
}

void MemoryCatalogDisk::ApplyUnseen(const CatalogBatch& batch) {
  const std::lock_guard<std::mutex> lock(mutex_);
  SyncAll();
  ApplyTo(synced_, ChangesOf(batch));
}

void MemoryCatalogDisk::Crash(Random& random) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const size_t kept = random.Next() % (unsynced_.size() + 1);
  for (size_t i = 0; i < kept; ++i) {
    ApplyTo(synced_, unsynced_[i]);
  }
  unsynced_.clear();
  pairs_ = synced_;
}

void MemoryCatalogDisk::Delete() {
  const std::lock_guard<std::mutex> lock(mutex_);
  pairs_.clear();
  synced_.clear();
  unsynced_.clear();
  exists_ = damaged_ = false;
}

void MemoryCatalogDisk::Damage() {
  const std::lock_guard<std::mutex> lock(mutex_);
  damaged_ = true;
}

bool MemoryCatalogDisk::FlipByte(const EntryKey& key, size_t offset, uint8_t mask) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = pairs_.find(EncodeEntryKey(key));
  if (found == pairs_.end() || offset >= found->second.size()) return false;
  found->second[offset] = static_cast<char>(found->second[offset] ^ mask);
  synced_[found->first] = found->second;
  return true;
}

void MemoryCatalogDisk::SetFault(std::function<absl::Status()> fault) {
  const std::lock_guard<std::mutex> lock(mutex_);
  fault_ = std::move(fault);
}

void MemoryCatalogDisk::SetScanHook(std::function<void()> hook) {
  const std::lock_guard<std::mutex> lock(mutex_);
  scan_hook_ = std::move(hook);
}

absl::Status MemoryCatalog::Open(const std::string& directory) {
  const std::lock_guard<std::mutex> lock(disk_->mutex_);
  if (disk_->damaged_) return absl::DataLossError(absl::StrCat(directory, "/catalog is damaged"));
  disk_->exists_ = true;
  read_only_ = false;
  return absl::OkStatus();
}

absl::Status MemoryCatalog::OpenReadOnly(const std::string& directory) {
  const std::lock_guard<std::mutex> lock(disk_->mutex_);
  if (disk_->damaged_) return absl::DataLossError(absl::StrCat(directory, "/catalog is damaged"));
  if (!disk_->exists_) return absl::NotFoundError(absl::StrCat(directory, "/catalog is absent"));
  read_only_ = true;
  return absl::OkStatus();
}

absl::StatusOr<std::string> MemoryCatalog::MoveAside(const std::string& directory) {
  const bool existed = [&] {
    const std::lock_guard<std::mutex> lock(disk_->mutex_);
    return disk_->exists_;
  }();
  disk_->Delete();
  CAIRN_RETURN_IF_ERROR(Open(directory));
  if (!existed) return std::string();
  const std::lock_guard<std::mutex> lock(disk_->mutex_);
  return absl::StrCat(directory, "/catalog.damaged-", ++disk_->moved_aside_);
}

absl::Status MemoryCatalog::Apply(const CatalogBatch& batch, bool sync) {
  const std::lock_guard<std::mutex> lock(disk_->mutex_);
  if (read_only_) return absl::FailedPreconditionError("the catalog is open for reading only");
  if (disk_->fault_ != nullptr) CAIRN_RETURN_IF_ERROR(disk_->fault_());
  std::vector<MemoryCatalogDisk::Change> changes = MemoryCatalogDisk::ChangesOf(batch);
  MemoryCatalogDisk::ApplyTo(disk_->pairs_, changes);
  disk_->unsynced_.push_back(std::move(changes));
  if (sync) disk_->SyncAll();
  return absl::OkStatus();
}

absl::StatusOr<std::optional<CatalogEntry>> MemoryCatalogDisk::GetFrom(const Pairs& pairs,
                                                                       const EntryKey& key) {
  const auto found = pairs.find(EncodeEntryKey(key));
  if (found == pairs.end()) return std::nullopt;
  CAIRN_ASSIGN_OR_RETURN(CatalogEntry entry, DecodeEntry(found->first, found->second));
  return entry;
}

absl::StatusOr<std::optional<CatalogEntry>> MemoryCatalog::Get(const EntryKey& key) const {
  const std::lock_guard<std::mutex> lock(disk_->mutex_);
  return MemoryCatalogDisk::GetFrom(disk_->pairs_, key);
}

std::vector<absl::StatusOr<std::optional<CatalogEntry>>> MemoryCatalog::MultiGet(
    std::span<const EntryKey> keys) const {
  std::vector<absl::StatusOr<std::optional<CatalogEntry>>> results;
  results.reserve(keys.size());
  for (const EntryKey& key : keys) results.push_back(Get(key));
  return results;
}

// A copy, so that the visitor may come back to the catalog.
class MemorySnapshot final : public CatalogSnapshot {
 public:
  MemorySnapshot(MemoryCatalogDisk::Pairs pairs, std::function<void()> hook)
      : pairs_(std::move(pairs)), hook_(std::move(hook)) {}

  absl::Status ForEach(const std::function<bool(const CatalogEntry&)>& visit) const override {
    for (const auto& [key, value] : pairs_) {
      if (key.front() != kEntryKeyPrefix) continue;
      if (hook_) hook_();
      CAIRN_ASSIGN_OR_RETURN(const CatalogEntry entry, DecodeEntry(key, value));
      if (!visit(entry)) break;
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::optional<CatalogEntry>> Get(const EntryKey& key) const override {
    return MemoryCatalogDisk::GetFrom(pairs_, key);
  }

 private:
  const MemoryCatalogDisk::Pairs pairs_;
  const std::function<void()> hook_;
};

std::unique_ptr<CatalogSnapshot> MemoryCatalog::Snapshot() const {
  const std::lock_guard<std::mutex> lock(disk_->mutex_);
  return std::make_unique<MemorySnapshot>(disk_->pairs_, disk_->scan_hook_);
}

absl::StatusOr<std::optional<std::string>> MemoryCatalog::GetValue(const std::string& name) const {
  const std::lock_guard<std::mutex> lock(disk_->mutex_);
  const auto found = disk_->pairs_.find(EncodeValueKey(name));
  if (found == disk_->pairs_.end()) return std::nullopt;
  return found->second;
}

}  // namespace cairn::store
