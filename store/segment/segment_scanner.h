// segment_scanner.h: walks a segment file without a catalog and tells what is in it.
//
// A record that is not whole costs only itself: the walk goes on at the next I/O unit, and
// finds the next record by its checksum, its own place and its tag.
//
// Threads: pure but for the file. Memory: one record and a window of 1 MiB.
// Errors:  those of the device. Damage is not an error but a finding.
#ifndef CAIRN_STORE_SEGMENT_SEGMENT_SCANNER_H_
#define CAIRN_STORE_SEGMENT_SEGMENT_SCANNER_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "store/device/file_system.h"
#include "store/segment/record_format.h"

namespace cairn::store {

struct ScannedRecord {
  CatalogEntry entry;
  bool payload_checked = false;
  bool payload_whole = false;  // meaningful if payload_checked
};

struct SegmentScan {
  std::vector<ScannedRecord> records;  // those with a whole header, in order of offset
  uint64_t records_end = 0;            // end of the last of them; `from` if there is none
  uint64_t written_end = 0;            // end of the last I/O unit that is not all zero
  uint64_t damaged_runs = 0;           // runs of units that are not zero and of no record, before
                                       // records_end; beyond it they are a torn tail
};

struct ScanOptions {
  StoreUuid store{};
  uint64_t segment = 0;
  uint64_t from = kSegmentHeaderBytes;
  uint64_t to = UINT64_MAX;  // or the file's end
  // Whether this record's payload is to be read and checked.
  std::function<bool(const CatalogEntry&)> check_payload;
  // Read at once. Whoever wants headers alone of whole segments takes kHeaderWindowBytes.
  uint64_t window_bytes = 1ull << 20;
};
inline constexpr uint64_t kHeaderWindowBytes = kRecordHeaderBytesMax;

absl::StatusOr<SegmentScan> ScanSegment(FileSystem& files, File& file, const ScanOptions& options);

}  // namespace cairn::store

#endif  // CAIRN_STORE_SEGMENT_SEGMENT_SCANNER_H_
