// memory_catalog.h: the catalog in memory, with a power switch. For tests and simulation.
//
// Its contents live in a MemoryCatalogDisk, which outlives the catalogs that open it, as a folder
// would. Entries are kept encoded (catalog_codec.h), so tests damage real bytes.
//
// Threads: catalog.h; MemoryCatalogDisk's methods from any thread.
#ifndef CAIRN_STORE_INDEX_MEMORY_CATALOG_H_
#define CAIRN_STORE_INDEX_MEMORY_CATALOG_H_

#include <functional>
#include <map>
#include <memory>
#include <mutex>

#include "store/base/random.h"
#include "store/index/catalog.h"

namespace cairn::store {

class MemoryCatalogDisk {
 public:
  // Of the batches that no sync followed, a prefix by the toss of `random` survives.
  void Crash(Random& random);
  void Delete();  // as rm -r would
  // Open answers DATA_LOSS from now on, until it is moved aside.
  void Damage();
  // XORs one byte of the entry's encoded value; false if there is no such entry.
  bool FlipByte(const EntryKey& key, size_t offset, uint8_t mask);
  // Called before each Apply; what it returns is what Apply returns, unless it is OK.
  void SetFault(std::function<absl::Status()> fault);
  // Called before each entry that a walk over a snapshot made from now on shows.
  void SetScanHook(std::function<void()> hook);
  // What a refused batch may leave behind: it is not seen before the next Crash, and then it is
  // there, with all that came before it.
  void ApplyUnseen(const CatalogBatch& batch);

 private:
  friend class MemoryCatalog;
  friend class MemorySnapshot;
  using Pairs = std::map<std::string, std::string>;
  struct Change {
    std::string key;
    std::optional<std::string> value;  // nullopt: erased
  };
  static std::vector<Change> ChangesOf(const CatalogBatch& batch);
  static void ApplyTo(Pairs& pairs, const std::vector<Change>& changes);
  static absl::StatusOr<std::optional<CatalogEntry>> GetFrom(const Pairs& pairs,
                                                             const EntryKey& key);
  void SyncAll();  // REQUIRES: mutex_

  mutable std::mutex mutex_;
  Pairs pairs_;                                // guarded by mutex_, as are all below
  Pairs synced_;                               // what survives for certain
  std::vector<std::vector<Change>> unsynced_;  // batches since
  bool exists_ = false;
  bool damaged_ = false;
  int moved_aside_ = 0;
  std::function<absl::Status()> fault_;
  std::function<void()> scan_hook_;
};

class MemoryCatalog final : public Catalog {
 public:
  MemoryCatalog() : disk_(std::make_shared<MemoryCatalogDisk>()) {}
  explicit MemoryCatalog(std::shared_ptr<MemoryCatalogDisk> disk) : disk_(std::move(disk)) {}

  absl::Status Open(const std::string& directory) override;
  absl::Status OpenReadOnly(const std::string& directory) override;
  absl::StatusOr<std::string> MoveAside(const std::string& directory) override;
  absl::Status Apply(const CatalogBatch& batch, bool sync) override;
  absl::StatusOr<std::optional<CatalogEntry>> Get(const EntryKey& key) const override;
  std::vector<absl::StatusOr<std::optional<CatalogEntry>>> MultiGet(
      std::span<const EntryKey> keys) const override;
  std::unique_ptr<CatalogSnapshot> Snapshot() const override;
  absl::StatusOr<std::optional<std::string>> GetValue(const std::string& name) const override;

 private:
  std::shared_ptr<MemoryCatalogDisk> disk_;
  bool read_only_ = false;
};

}  // namespace cairn::store

#endif  // CAIRN_STORE_INDEX_MEMORY_CATALOG_H_
