// record_format.h: the bytes of a segment file. FORMAT.md explains them with an example.
//
//   segment := segment header page, record*, unwritten (zero) tail
//   record  := header (whole I/O units), payload padded to an I/O unit
//
// Threads: pure functions. Units: bytes; all integers little-endian.
// Errors:  DATA_LOSS from decoding: what is wrong with the bytes, in words.
#ifndef CAIRN_STORE_SEGMENT_RECORD_FORMAT_H_
#define CAIRN_STORE_SEGMENT_RECORD_FORMAT_H_

#include <array>
#include <bit>
#include <cstdint>
#include <span>
#include <type_traits>

#include "store/base/entry.h"
#include "store/base/limits.h"
#include "store/base/status.h"
#include "store/index/catalog.h"

namespace cairn::store {

inline constexpr uint32_t kFormatVersion = 1;
inline constexpr uint64_t kSegmentMagic = 0x314745534e524943;  // "CIRNSEG1" in a hex dump
inline constexpr uint64_t kRecordMagic = 0x314345524e524943;   // "CIRNREC1"

using StoreUuid = std::array<uint8_t, 16>;

static_assert(std::endian::native == std::endian::little,
              "the structures below are written as they lie in memory");

// The first page of a segment file; the rest of the page is zero.
struct SegmentHeader {
  uint64_t magic = kSegmentMagic;
  uint32_t version = kFormatVersion;
  uint32_t zero = 0;
  uint64_t segment = 0;             // the file's own number: a renamed or copied file is noticed
  uint64_t tag = 0;                 // SegmentTag
  StoreUuid store{};                // whose segment: one of another store is noticed
  int64_t created_wall_micros = 0;  // for people
  uint64_t checksum = 0;            // XXH3-64 of the page with this field as zero
};
static_assert(sizeof(SegmentHeader) == 64 && std::is_trivially_copyable_v<SegmentHeader>);

// The fixed head of a record, followed by the part table and the attributes, then zeroes.
struct RecordHeader {
  uint64_t magic = kRecordMagic;
  uint32_t version = kFormatVersion;
  uint32_t header_bytes = 0;  // with part table, attributes and padding: 1 to 3 I/O units
  uint64_t checksum = 0;      // XXH3-64 of header_bytes with this field as zero: torn, decayed
  uint64_t segment = 0;       // these three: a misdirected write, a stale page, and bytes of a
  uint64_t offset = 0;        // payload that only look like a record
  uint64_t tag = 0;
  uint64_t sequence = 0;       // ever growing: which of two records of a key is newer
  uint64_t payload_bytes = 0;  // without padding; the sum of the part table
  uint32_t part_count = 0;
  uint16_t attributes_bytes = 0;
  uint8_t kind = 0;
  uint8_t zero = 0;
  uint8_t digest[32] = {};  // with kind: a read of another entry's record
};
static_assert(sizeof(RecordHeader) == 104 && std::is_trivially_copyable_v<RecordHeader>);

struct RecordPart {
  uint64_t xxh3 = 0;  // of the part's bytes: the payload's decay, part by part
  uint32_t bytes = 0;
  uint32_t zero = 0;
};
static_assert(sizeof(RecordPart) == 16);

inline constexpr uint64_t kSegmentHeaderBytes = kIoAlignment;
inline constexpr uint64_t kRecordHeaderBytesMax = RoundUpToIo(
    sizeof(RecordHeader) + kPartsPerEntryMax * sizeof(RecordPart) + kAttributesBytesMax);
static_assert(kRecordHeaderBytesMax == 3 * kIoAlignment);

// A number that nobody outside of the store can know, so that no payload can pretend to be a
// record: the first 8 bytes of SHA-256("cairn.segment.1" || store || segment).
uint64_t SegmentTag(const StoreUuid& store, uint64_t segment);

uint64_t RecordHeaderBytes(const EntryMeta& meta);
uint64_t RecordBytes(const EntryMeta& meta);

// INVALID_ARGUMENT naming the field and its bound.
absl::Status ValidateMeta(const EntryMeta& meta);

// `page` has kSegmentHeaderBytes. Decoding: FAILED_PRECONDITION for a whole header of another
// format version.
void EncodeSegmentHeader(const SegmentHeader& header, std::span<uint8_t> page);
absl::StatusOr<SegmentHeader> DecodeSegmentHeader(std::span<const uint8_t> page);

// `out` has RecordHeaderBytes(meta). location.bytes is not looked at.
void EncodeRecordHeader(const EntryMeta& meta, const RecordLocation& location, uint64_t tag,
                        std::span<uint8_t> out);
// How many bytes DecodeRecordHeader needs, from the first I/O unit of a record; 0 if it is none.
uint64_t PeekRecordHeaderBytes(std::span<const uint8_t> first_unit);
// DATA_LOSS unless these bytes are whole and belong to this place of this segment.
absl::StatusOr<CatalogEntry> DecodeRecordHeader(std::span<const uint8_t> bytes, uint64_t segment,
                                                uint64_t offset, uint64_t tag);

// DATA_LOSS naming the first part that does not match its checksum.
absl::Status VerifyParts(const EntryMeta& meta, std::span<const uint8_t> payload);

}  // namespace cairn::store

#endif  // CAIRN_STORE_SEGMENT_RECORD_FORMAT_H_
