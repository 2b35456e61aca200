#include "store/index/rocks_catalog.h"

#include <rocksdb/cache.h>
#include <rocksdb/db.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/options.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>

#include <filesystem>

#include "store/index/catalog_codec.h"

namespace cairn::store {
namespace {

constexpr size_t kBlockCacheBytes = 64u << 20;
constexpr size_t kWriteBufferBytes = 16u << 20;
constexpr int kOpenFilesMax = 256;
constexpr size_t kLogBytesMax = 4u << 20;
constexpr int kMovedAsideMax = 1000;
constexpr size_t kScanAheadBytes = 2u << 20;

absl::Status FromRocks(const rocksdb::Status& status, const std::string& what) {
  if (status.ok()) return absl::OkStatus();
  const std::string message = absl::StrCat("catalog: ", what, ": ", status.ToString());
  if (status.IsCorruption()) return absl::DataLossError(message);
  if (status.IsNoSpace() || status.IsMemoryLimit()) return absl::ResourceExhaustedError(message);
  return absl::UnavailableError(message);
}

rocksdb::Options DatabaseOptions() {
  rocksdb::Options options;
  options.create_if_missing = true;
  // Damage must show at once, here, where it costs a rebuild; not later, as a wrong location.
  options.paranoid_checks = true;
  // A damaged log ends the catalog at an earlier moment, watermark included, so recovery adopts
  // what came after from the segments.
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;
  options.force_consistency_checks = true;
  // Bounded memory and files: the catalog is about 200 B an entry and is read by point.
  options.write_buffer_size = kWriteBufferBytes;
  options.max_write_buffer_number = 2;
  options.max_open_files = kOpenFilesMax;
  options.max_background_jobs = 2;
  options.compression = rocksdb::kNoCompression;  // digests and checksums do not compress
  options.max_log_file_size = kLogBytesMax;
  options.keep_log_file_num = 2;
  options.info_log_level = rocksdb::WARN_LEVEL;
  options.db_host_id.clear();  // tables need not name the machine
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = rocksdb::NewLRUCache(kBlockCacheBytes);
  table.cache_index_and_filter_blocks = true;
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  table.checksum = rocksdb::kXXH3;
  table.format_version = 5;
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return options;
}

rocksdb::ReadOptions ReadOptions() {
  rocksdb::ReadOptions options;
  options.verify_checksums = true;
  return options;
}

absl::StatusOr<std::optional<CatalogEntry>> Decode(const rocksdb::Status& status,
                                                   const std::string& key,
                                                   const rocksdb::Slice& value) {
  if (status.IsNotFound()) return std::nullopt;
  CAIRN_RETURN_IF_ERROR(FromRocks(status, "read"));
  CAIRN_ASSIGN_OR_RETURN(CatalogEntry entry, DecodeEntry(key, value.ToStringView()));
  return entry;
}

absl::StatusOr<std::optional<CatalogEntry>> GetEntry(rocksdb::DB& database,
                                                     const rocksdb::ReadOptions& options,
                                                     const EntryKey& key) {
  const std::string encoded = EncodeEntryKey(key);
  rocksdb::PinnableSlice value;
  const rocksdb::Status status =
      database.Get(options, database.DefaultColumnFamily(), encoded, &value);
  return Decode(status, encoded, value);
}

class RocksSnapshot final : public CatalogSnapshot {
 public:
  explicit RocksSnapshot(rocksdb::DB& database)
      : database_(database), snapshot_(database.GetSnapshot()) {}
  ~RocksSnapshot() override { database_.ReleaseSnapshot(snapshot_); }
  RocksSnapshot(const RocksSnapshot&) = delete;  // released once

  absl::Status ForEach(const std::function<bool(const CatalogEntry&)>& visit) const override {
    rocksdb::ReadOptions options = ReadOptions();
    options.snapshot = snapshot_;
    options.fill_cache = false;  // a scan must not push out what lookups use
    options.readahead_size = kScanAheadBytes;
    const std::unique_ptr<rocksdb::Iterator> it(database_.NewIterator(options));
    const std::string prefix(1, kEntryKeyPrefix);
    for (it->Seek(prefix); it->Valid() && it->key().starts_with(prefix); it->Next()) {
      CAIRN_ASSIGN_OR_RETURN(const CatalogEntry entry,
                             DecodeEntry(it->key().ToStringView(), it->value().ToStringView()));
      if (!visit(entry)) return absl::OkStatus();
    }
    return FromRocks(it->status(), "iterate");
  }

  absl::StatusOr<std::optional<CatalogEntry>> Get(const EntryKey& key) const override {
    rocksdb::ReadOptions options = ReadOptions();
    options.snapshot = snapshot_;
    return GetEntry(database_, options, key);
  }

 private:
  rocksdb::DB& database_;
  const rocksdb::Snapshot* const snapshot_;
};

class RocksCatalog final : public Catalog {
 public:
  absl::Status Open(const std::string& directory) override {
    const std::string path = PathIn(directory);
    rocksdb::DB* opened = nullptr;
    const rocksdb::Status status = rocksdb::DB::Open(DatabaseOptions(), path, &opened);
    database_.reset(opened);
    return OpenStatus(status, path);
  }

  absl::Status OpenReadOnly(const std::string& directory) override {
    const std::string path = PathIn(directory);
    std::error_code error;
    if (!std::filesystem::exists(path, error)) {
      return absl::NotFoundError(absl::StrCat(path, " is absent"));
    }
    rocksdb::Options options = DatabaseOptions();
    options.create_if_missing = false;
    rocksdb::DB* opened = nullptr;
    const rocksdb::Status status = rocksdb::DB::OpenForReadOnly(options, path, &opened);
    database_.reset(opened);
    read_only_ = true;
    return OpenStatus(status, path);
  }

  absl::StatusOr<std::string> MoveAside(const std::string& directory) override {
    database_.reset();
    const std::string path = PathIn(directory);
    std::string aside;
    std::error_code error;
    if (std::filesystem::exists(path, error)) {
      for (int i = 1; i <= kMovedAsideMax; ++i) {
        aside = absl::StrCat(path, ".damaged-", i);
        if (!std::filesystem::exists(aside, error)) break;
      }
      std::filesystem::rename(path, aside, error);
      if (error) {
        return absl::UnavailableError(
            absl::StrCat("move ", path, " to ", aside, ": ", error.message()));
      }
    }
    CAIRN_RETURN_IF_ERROR(Open(directory));
    return aside;
  }

  absl::Status Apply(const CatalogBatch& batch, bool sync) override {
    if (read_only_) return absl::FailedPreconditionError("the catalog is open for reading only");
    rocksdb::WriteBatch writes;
    rocksdb::Status status;
    const auto collect = [&](const rocksdb::Status& added) {
      if (status.ok()) status = added;
    };
    for (const CatalogEntry& entry : batch.puts) {
      collect(writes.Put(EncodeEntryKey(entry.meta.key), EncodeEntryValue(entry)));
    }
    for (const EntryKey& key : batch.erases) collect(writes.Delete(EncodeEntryKey(key)));
    for (const auto& [name, value] : batch.values) {
      collect(writes.Put(EncodeValueKey(name), value));
    }
    CAIRN_RETURN_IF_ERROR(FromRocks(status, "collect a batch"));
    rocksdb::WriteOptions options;
    options.sync = sync;
    status = database_->Write(options, &writes);
    if (!status.ok()) {
      // RocksDB refuses all writes after a failed one until it is told that the cause is gone.
      database_->Resume().PermitUncheckedError();
    }
    return FromRocks(status, "write");
  }

  absl::StatusOr<std::optional<CatalogEntry>> Get(const EntryKey& key) const override {
    return GetEntry(*database_, ReadOptions(), key);
  }

  std::vector<absl::StatusOr<std::optional<CatalogEntry>>> MultiGet(
      std::span<const EntryKey> keys) const override {
    std::vector<std::string> encoded;
    encoded.reserve(keys.size());
    for (const EntryKey& key : keys) encoded.push_back(EncodeEntryKey(key));
    const std::vector<rocksdb::Slice> slices(encoded.begin(), encoded.end());
    std::vector<rocksdb::PinnableSlice> values(keys.size());
    std::vector<rocksdb::Status> statuses(keys.size());
    database_->MultiGet(ReadOptions(), database_->DefaultColumnFamily(), keys.size(), slices.data(),
                        values.data(), statuses.data());
    std::vector<absl::StatusOr<std::optional<CatalogEntry>>> results;
    results.reserve(keys.size());
    for (size_t i = 0; i < keys.size(); ++i) {
      results.push_back(Decode(statuses[i], encoded[i], values[i]));
    }
    return results;
  }

  std::unique_ptr<CatalogSnapshot> Snapshot() const override {
    return std::make_unique<RocksSnapshot>(*database_);
  }

  absl::StatusOr<std::optional<std::string>> GetValue(const std::string& name) const override {
    std::string value;
    const rocksdb::Status status = database_->Get(ReadOptions(), EncodeValueKey(name), &value);
    if (status.IsNotFound()) return std::nullopt;
    CAIRN_RETURN_IF_ERROR(FromRocks(status, absl::StrCat("read value ", name)));
    return value;
  }

 private:
  static std::string PathIn(const std::string& directory) { return directory + "/catalog"; }

  // An error while opening that is not the device's or the disk's is damage: a missing file or a
  // manifest of nonsense comes as InvalidArgument, IOError with a path, or NotSupported.
  static absl::Status OpenStatus(const rocksdb::Status& status, const std::string& path) {
    if (status.ok()) return absl::OkStatus();
    const absl::Status translated = FromRocks(status, absl::StrCat("open ", path));
    const bool missing_file = status.IsPathNotFound() || status.IsNotFound() ||
                              status.ToString().find("No such file") != std::string::npos;
    if (status.IsInvalidArgument() || status.IsNotSupported() || missing_file) {
      return absl::DataLossError(std::string(translated.message()));
    }
    return translated;
  }

  std::unique_ptr<rocksdb::DB> database_;
  bool read_only_ = false;
};

}  // namespace

std::unique_ptr<Catalog> MakeRocksCatalog() { return std::make_unique<RocksCatalog>(); }

}  // namespace cairn::store
