// The scanner (store/segment/segment_scanner.h) over a segment file that was damaged in any way.
//
// from u8 (I/O units), then the steps of segment_image.h.
#include "store/segment/segment_scanner.h"

#include "store/device/memory_file_system.h"
#include "tests/fuzz/segment_image.h"

namespace cairn::store {
namespace {

constexpr StoreUuid kStore = {1, 2, 3};
constexpr uint64_t kSegment = 5;

// Nothing outside of the file, nothing twice, nothing called whole that is not.
void CheckScan(const SegmentScan& scan, const ScanOptions& options,
               const std::vector<uint8_t>& image) {
  uint64_t end = options.from;
  for (const ScannedRecord& record : scan.records) {
    const RecordLocation& at = record.entry.location;
    FUZZ_CHECK(at.segment == options.segment && at.offset >= end);
    FUZZ_CHECK(at.offset % kIoAlignment == 0 && at.bytes % kIoAlignment == 0);
    FUZZ_CHECK(at.bytes == RecordBytes(record.entry.meta));
    end = at.offset + at.bytes;
    FUZZ_CHECK(end <= image.size());
    FUZZ_CHECK_OK(ValidateMeta(record.entry.meta));
    FUZZ_CHECK(record.payload_checked);
    const auto payload = std::span(image).subspan(at.offset + RecordHeaderBytes(record.entry.meta),
                                                  record.entry.meta.payload_bytes());
    FUZZ_CHECK(record.payload_whole == VerifyParts(record.entry.meta, payload).ok());
  }
  FUZZ_CHECK(scan.records_end == end);
  FUZZ_CHECK(scan.written_end >= end && scan.written_end <= std::max(options.from, image.size()));
}

}  // namespace
}  // namespace cairn::store

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cairn::store;
  cairn::fuzz::FuzzInput input(data, size);
  const uint64_t from = (1 + input.Take<uint8_t>() % 4) * cairn::kIoAlignment;
  cairn::fuzz::SegmentImage image(kStore, kSegment);
  image.Build(input);

  MemoryFileSystem files;
  FUZZ_CHECK_OK(files.MakeDirectory("/d"));
  const absl::StatusOr<std::unique_ptr<File>> file = files.Open("/d/s", OpenMode::kCreate);
  FUZZ_CHECK_OK(file.status());
  image.Write(files, **file);
  const ScanOptions options = {
      .store = kStore, .segment = kSegment, .from = from, .check_payload = [](const CatalogEntry&) {
        return true;
      }};
  const absl::StatusOr<SegmentScan> scan = ScanSegment(files, **file, options);
  FUZZ_CHECK_OK(scan.status());
  CheckScan(*scan, options, image.bytes());
  if (image.damaged() || from != kSegmentHeaderBytes) return 0;
  // An image that nobody damaged is found whole.
  FUZZ_CHECK(scan->records.size() == image.records().size() && scan->damaged_runs == 0);
  for (const ScannedRecord& record : scan->records) FUZZ_CHECK(record.payload_whole);
  return 0;
}
