// check.h: looks a store's directory over without changing it (`cairnd --check`): every segment is
// walked, every payload verified, every catalogued location compared.
//
// Threads: called alone; the directory is locked meanwhile.
// Errors:  FAILED_PRECONDITION (in use, or another format version), NOT_FOUND (no such directory),
//          UNAVAILABLE (device). Damage is not an error but in the report.
#ifndef CAIRN_STORE_RECOVERY_CHECK_H_
#define CAIRN_STORE_RECOVERY_CHECK_H_

#include <cstdint>
#include <string>
#include <vector>

#include "store/base/status.h"
#include "store/device/file_system.h"
#include "store/index/catalog.h"

namespace cairn::store {

struct CheckReport {
  uint64_t segments = 0;
  uint64_t records = 0;          // whole ones, found or dead
  uint64_t entries = 0;          // catalogued and whole
  uint64_t payload_bytes = 0;    // of whole records
  uint64_t damaged_entries = 0;  // catalogued, but not whole on disk
  std::string catalog_trouble;   // empty: sound. Opening the store would rebuild it.
  struct DamagedSegment {
    std::string path;
    std::string why;
  };
  std::vector<DamagedSegment> damaged_segments;

  bool catalog_damaged() const { return !catalog_trouble.empty(); }
  bool sound() const {
    return !catalog_damaged() && damaged_segments.empty() && damaged_entries == 0;
  }
};

// `catalog` is one that was never opened.
absl::StatusOr<CheckReport> CheckDirectory(const std::string& directory, FileSystem& files,
                                           Catalog& catalog);

}  // namespace cairn::store

#endif  // CAIRN_STORE_RECOVERY_CHECK_H_
