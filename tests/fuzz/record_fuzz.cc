// Segment header pages and record headers (store/segment/record_format.h).
//
// flags u8, then the bytes, which are zero-extended to the largest header. A fuzzer does not find
// checksums, so the flags can mend them (and a record's place): what lies behind a checksum that
// holds must be decoded as warily.
#include <cstddef>
#include <vector>

#include "store/base/checksum.h"
#include "store/segment/record_format.h"
#include "tests/fuzz/fuzz_input.h"

namespace cairn::store {
namespace {

using fuzz::CheckRefusal;
using fuzz::FuzzInput;

constexpr uint8_t kIsRecord = 1, kSeal = 2, kPlace = 4, kCutShort = 8;
constexpr uint64_t kSegment = 7, kOffset = 8192;
constexpr StoreUuid kStore = {1, 2, 3};

template <typename Header>
void Seal(std::span<uint8_t> bytes) {
  Header header;
  std::memcpy(&header, bytes.data(), sizeof(header));
  header.checksum = 0;
  std::memcpy(bytes.data(), &header, sizeof(header));
  header.checksum = Checksum(bytes);
  std::memcpy(bytes.data(), &header, sizeof(header));
}

void SegmentHeaders(std::span<const uint8_t> bytes) {
  const absl::StatusOr<SegmentHeader> decoded = DecodeSegmentHeader(bytes);
  if (!decoded.ok()) return CheckRefusal(decoded.status());
  FUZZ_CHECK(decoded->magic == kSegmentMagic && decoded->version == kFormatVersion);
  std::vector<uint8_t> again(kSegmentHeaderBytes);
  EncodeSegmentHeader(*decoded, again);
  FUZZ_CHECK(std::equal(again.begin(), again.end(), bytes.begin()));
}

void PlaceRecord(std::span<uint8_t> bytes) {
  RecordHeader header;
  std::memcpy(&header, bytes.data(), sizeof(header));
  header.segment = kSegment;
  header.offset = kOffset;
  header.tag = SegmentTag(kStore, kSegment);
  std::memcpy(bytes.data(), &header, sizeof(header));
}

void RecordHeaders(std::span<const uint8_t> bytes) {
  const uint64_t tag = SegmentTag(kStore, kSegment);
  const absl::StatusOr<CatalogEntry> decoded = DecodeRecordHeader(bytes, kSegment, kOffset, tag);
  if (!decoded.ok()) return CheckRefusal(decoded.status());
  FUZZ_CHECK_OK(ValidateMeta(decoded->meta));
  FUZZ_CHECK(decoded->location.segment == kSegment && decoded->location.offset == kOffset);
  FUZZ_CHECK(decoded->location.bytes == RecordBytes(decoded->meta));
  FUZZ_CHECK(decoded->location.bytes <= kRecordHeaderBytesMax + kEntryBytesMax);
  FUZZ_CHECK(RecordHeaderBytes(decoded->meta) == PeekRecordHeaderBytes(bytes));
  std::vector<uint8_t> again(RecordHeaderBytes(decoded->meta));
  EncodeRecordHeader(decoded->meta, decoded->location, tag, again);
  FUZZ_CHECK(std::equal(again.begin(), again.end(), bytes.begin()));
  // Of whatever bytes: these are not its payload.
  const absl::Status payload = VerifyParts(decoded->meta, bytes);
  if (!payload.ok()) CheckRefusal(payload);
}

}  // namespace
}  // namespace cairn::store

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cairn::store;
  cairn::fuzz::FuzzInput input(data, size);
  const auto flags = input.Take<uint8_t>();
  const std::span<const uint8_t> given = input.TakeRest();
  std::vector<uint8_t> bytes(given.begin(), given.end());
  if ((flags & kCutShort) == 0) {
    bytes.resize(std::max<size_t>(bytes.size(), kRecordHeaderBytesMax));
    const uint64_t record_bytes = PeekRecordHeaderBytes(bytes);
    if ((flags & kIsRecord) == 0 && (flags & kSeal) != 0) {
      Seal<SegmentHeader>(std::span(bytes).first(kSegmentHeaderBytes));
    }
    if ((flags & kIsRecord) != 0 && record_bytes > 0) {
      if ((flags & kPlace) != 0) PlaceRecord(bytes);
      if ((flags & kSeal) != 0) Seal<RecordHeader>(std::span(bytes).first(record_bytes));
    }
  }
  if ((flags & kIsRecord) == 0) {
    SegmentHeaders(bytes);
    return 0;
  }
  // In memory of just its own size, where a sanitizer sees a read beyond it.
  const uint64_t record_bytes = PeekRecordHeaderBytes(bytes);
  RecordHeaders(record_bytes > 0 && record_bytes < bytes.size()
                    ? std::vector<uint8_t>(
                          bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(record_bytes))
                    : bytes);
  return 0;
}
