// store_files.h: the names and the small files of a store's directory.
//
//   FORMAT      text: version and uuid of the store (one I/O unit, written once)
//   LOCK        held by the process that has the store open
//   catalog/    RocksDB (store/index)
//   REBUILD     if there: the catalog is damaged, to be made anew at the next open
//   segments/   <id as 16 hex digits>.seg (store/segment/FORMAT.md)
//
// Threads: pure functions over files.
// Errors:  FAILED_PRECONDITION: another format version wrote the directory (names both).
#ifndef CAIRN_STORE_RECOVERY_STORE_FILES_H_
#define CAIRN_STORE_RECOVERY_STORE_FILES_H_

#include <optional>
#include <string>
#include <vector>

#include "store/base/random.h"
#include "store/device/file_system.h"
#include "store/segment/record_format.h"

namespace cairn::store {

// Names of the small values that the catalog holds.
inline constexpr char kValueUuid[] = "store.uuid";
inline constexpr char kValueWatermark[] = "store.watermark";

std::string SegmentsDirectory(const std::string& directory);

// nullopt: absent or unreadable as a whole, which segments' headers can make good.
absl::StatusOr<std::optional<StoreUuid>> ReadFormatFile(const std::string& directory,
                                                        FileSystem& files);
absl::Status WriteFormatFile(const std::string& directory, const StoreUuid& store,
                             FileSystem& files);

// A damaged catalog that was found while it is in use is made anew when the store is opened next.
absl::Status MarkForRebuild(const std::string& directory, FileSystem& files);
absl::StatusOr<bool> IsMarkedForRebuild(const std::string& directory, FileSystem& files);
absl::Status UnmarkForRebuild(const std::string& directory, FileSystem& files);

StoreUuid NewStoreUuid(Random& random);
std::string UuidText(const StoreUuid& store);

// A segment's file as found: opened, its header page read.
struct SegmentFile {
  uint64_t id = 0;
  std::unique_ptr<File> file = nullptr;
  uint64_t size = 0;
  absl::Status header_status = {};  // DATA_LOSS: damaged, or another segment's
  SegmentHeader header = {};        // meaningful if header_status is OK
};

// In order of id. Files of other names are left alone. FAILED_PRECONDITION: a segment of another
// format version.
absl::StatusOr<std::vector<SegmentFile>> OpenSegmentFiles(const std::string& directory,
                                                          FileSystem& files, OpenMode mode);

}  // namespace cairn::store

#endif  // CAIRN_STORE_RECOVERY_STORE_FILES_H_
