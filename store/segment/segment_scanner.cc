#include "store/segment/segment_scanner.h"

#include <algorithm>
#include <cstring>

namespace cairn::store {
namespace {

bool AllZero(std::span<const uint8_t> bytes) {
  return bytes.empty() ||
         (bytes[0] == 0 && std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

// Reads the file through one moving window.
class Window {
 public:
  Window(FileSystem& files, File& file, uint64_t bytes)
      : files_(files), file_(file), buffer_(bytes) {}

  // At most `bytes` (<= the window's) from `offset`; fewer at the end of the file, in whole units.
  absl::StatusOr<std::span<const uint8_t>> At(uint64_t offset, uint64_t bytes) {
    if (offset < start_ || offset + bytes > start_ + filled_) {
      IoRequest read = IoRequest::Read(file_, offset, buffer_.bytes());
      files_.Submit({&read, 1});
      CAIRN_RETURN_IF_ERROR(read.status);
      start_ = offset;
      filled_ = read.bytes_done / kIoAlignment * kIoAlignment;
    }
    const uint64_t there = std::min(bytes, start_ + filled_ - offset);
    return std::span<const uint8_t>(buffer_.bytes()).subspan(offset - start_, there);
  }

 private:
  FileSystem& files_;
  File& file_;
  IoBuffer buffer_;
  uint64_t start_ = 0;
  uint64_t filled_ = 0;
};

absl::StatusOr<bool> PayloadWhole(FileSystem& files, File& file, const CatalogEntry& entry) {
  const uint64_t header_bytes = RecordHeaderBytes(entry.meta);
  IoBuffer payload(entry.location.bytes - header_bytes);
  IoRequest read = IoRequest::Read(file, entry.location.offset + header_bytes, payload.bytes());
  files.Submit({&read, 1});
  CAIRN_RETURN_IF_ERROR(read.status);
  if (read.bytes_done < entry.meta.payload_bytes()) return false;
  return VerifyParts(entry.meta, payload.bytes()).ok();
}

}  // namespace

absl::StatusOr<SegmentScan> ScanSegment(FileSystem& files, File& file, const ScanOptions& options) {
  CAIRN_ASSIGN_OR_RETURN(const uint64_t file_size, file.Size());
  const uint64_t size = std::min(file_size, options.to);
  const uint64_t tag = SegmentTag(options.store, options.segment);
  Window window(files, file, options.window_bytes);
  SegmentScan scan;
  scan.records_end = scan.written_end = options.from;
  uint64_t runs = 0;  // of damage so far
  bool in_run = false;
  uint64_t at = options.from;
  while (at + kIoAlignment <= size) {
    CAIRN_ASSIGN_OR_RETURN(std::span<const uint8_t> bytes, window.At(at, kIoAlignment));
    if (bytes.empty()) break;
    if (const uint64_t header_bytes = PeekRecordHeaderBytes(bytes); header_bytes > 0) {
      CAIRN_ASSIGN_OR_RETURN(bytes, window.At(at, header_bytes));
      absl::StatusOr<CatalogEntry> entry = DecodeRecordHeader(bytes, options.segment, at, tag);
      if (entry.ok() && at + entry->location.bytes <= size) {
        ScannedRecord record{.entry = *std::move(entry)};
        if (options.check_payload != nullptr && options.check_payload(record.entry)) {
          record.payload_checked = true;
          CAIRN_ASSIGN_OR_RETURN(record.payload_whole, PayloadWhole(files, file, record.entry));
        }
        at += record.entry.location.bytes;
        scan.records_end = scan.written_end = at;
        scan.damaged_runs = runs;
        in_run = false;
        scan.records.push_back(std::move(record));
        continue;
      }
    }
    if (AllZero(bytes.first(kIoAlignment))) {
      in_run = false;
    } else {
      if (!in_run) ++runs;
      in_run = true;
      scan.written_end = at + kIoAlignment;
    }
    at += kIoAlignment;
  }
  return scan;
}

}  // namespace cairn::store
