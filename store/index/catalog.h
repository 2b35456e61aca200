// catalog.h: where each entry lies. Key -> record location, part table and attributes, plus a few
// small values of the store itself.
//
// The catalog is an index, never the truth: losing it costs a scan of the segments
// (store/recovery), so a damaged one is moved aside and made anew.
//
// Life: made closed (MakeRocksCatalog, MemoryCatalog), opened by the disk tier in its directory.
//
// Threads:   Open, OpenReadOnly and MoveAside alone; all else from any thread.
// Durability: Apply with sync = true makes this batch and all earlier ones durable; a batch is
//            whole or absent after a crash, and none is there without all earlier ones.
// Errors:    DATA_LOSS (damaged: rebuild it), RESOURCE_EXHAUSTED (disk full), UNAVAILABLE (device).
//            An absent key is a nullopt.
#ifndef CAIRN_STORE_INDEX_CATALOG_H_
#define CAIRN_STORE_INDEX_CATALOG_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "store/base/entry.h"
#include "store/base/status.h"

namespace cairn::store {

// A record: one entry in a segment, header and payload, whole I/O units (store/segment/FORMAT.md).
struct RecordLocation {
  uint64_t segment = 0;
  uint64_t offset = 0;  // of the header, in the segment's file
  uint64_t bytes = 0;   // header + padded payload
  uint64_t sequence = 0;
  friend bool operator==(const RecordLocation&, const RecordLocation&) = default;
};

struct CatalogEntry {
  EntryMeta meta;
  RecordLocation location;
};

// Changes that happen together.
struct CatalogBatch {
  std::vector<CatalogEntry> puts;
  std::vector<EntryKey> erases;
  std::vector<std::pair<std::string, std::string>> values;  // name -> bytes
};

// What a catalog held at one moment, however it changes afterwards. Must not outlive it.
class CatalogSnapshot {
 public:
  virtual ~CatalogSnapshot() = default;
  // Every entry once, in no order; stops when the visitor returns false.
  virtual absl::Status ForEach(const std::function<bool(const CatalogEntry&)>& visit) const = 0;
  virtual absl::StatusOr<std::optional<CatalogEntry>> Get(const EntryKey& key) const = 0;
};

class Catalog {
 public:
  virtual ~Catalog() = default;

  // In <directory>/catalog, made if absent.
  virtual absl::Status Open(const std::string& directory) = 0;
  // NOT_FOUND if there is none. Apply then is FAILED_PRECONDITION.
  virtual absl::Status OpenReadOnly(const std::string& directory) = 0;
  // Closes whatever is there, renames it to catalog.damaged-N and opens an empty one. Returns the
  // new path of the old one (empty if there was nothing).
  virtual absl::StatusOr<std::string> MoveAside(const std::string& directory) = 0;

  virtual absl::Status Apply(const CatalogBatch& batch, bool sync) = 0;
  virtual absl::StatusOr<std::optional<CatalogEntry>> Get(const EntryKey& key) const = 0;
  // One result a key, in order.
  virtual std::vector<absl::StatusOr<std::optional<CatalogEntry>>> MultiGet(
      std::span<const EntryKey> keys) const = 0;
  // As of the call. Keeps the disk space of what is erased later until it is dropped.
  virtual std::unique_ptr<CatalogSnapshot> Snapshot() const = 0;
  absl::Status ForEach(const std::function<bool(const CatalogEntry&)>& visit) const {
    return Snapshot()->ForEach(visit);
  }
  virtual absl::StatusOr<std::optional<std::string>> GetValue(const std::string& name) const = 0;
};

}  // namespace cairn::store

#endif  // CAIRN_STORE_INDEX_CATALOG_H_
