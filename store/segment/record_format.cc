#include "store/segment/record_format.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <vector>

#include "store/base/checksum.h"
#include "store/base/digest.h"

namespace cairn::store {
namespace {

// The checksum of `bytes` as if its own field held zero.
template <typename Header>
uint64_t ChecksumOf(std::span<const uint8_t> bytes) {
  std::vector<uint8_t> copy(bytes.begin(), bytes.end());
  std::memset(copy.data() + offsetof(Header, checksum), 0, sizeof(uint64_t));
  return Checksum(copy);
}

template <typename Header>
Header ReadHeader(std::span<const uint8_t> bytes) {
  Header header;
  std::memcpy(&header, bytes.data(), sizeof(header));
  return header;
}

// The format has no meaning for what lies here but zero: one day it may be another version's.
bool AllZero(std::span<const uint8_t> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](uint8_t byte) { return byte == 0; });
}

absl::Status Over(const char* field, uint64_t value, uint64_t bound) {
  return absl::InvalidArgumentError(
      absl::StrCat("entry: ", field, " is ", value, ", must be 1 to ", bound));
}

}  // namespace

uint64_t SegmentTag(const StoreUuid& store, uint64_t segment) {
  constexpr char kLabel[] = "cairn.segment.1";
  std::array<uint8_t, sizeof(kLabel) - 1 + sizeof(StoreUuid) + sizeof(segment)> text;
  std::memcpy(text.data(), kLabel, sizeof(kLabel) - 1);
  std::memcpy(text.data() + sizeof(kLabel) - 1, store.data(), store.size());
  std::memcpy(text.data() + sizeof(kLabel) - 1 + store.size(), &segment, sizeof(segment));
  const Digest digest = Sha256(text);
  uint64_t tag;
  std::memcpy(&tag, digest.bytes.data(), sizeof(tag));
  return tag;
}

uint64_t RecordHeaderBytes(const EntryMeta& meta) {
  return RoundUpToIo(sizeof(RecordHeader) + meta.parts.size() * sizeof(RecordPart) +
                     meta.attributes.size());
}

uint64_t RecordBytes(const EntryMeta& meta) {
  return RecordHeaderBytes(meta) + RoundUpToIo(meta.payload_bytes());
}

absl::Status ValidateMeta(const EntryMeta& meta) {
  if (meta.key.kind != EntryKind::kRows && meta.key.kind != EntryKind::kCheckpoint) {
    return absl::InvalidArgumentError(
        absl::StrCat("entry: kind is ", static_cast<int>(meta.key.kind), ", must be 1 or 2"));
  }
  if (meta.parts.empty() || meta.parts.size() > kPartsPerEntryMax) {
    return Over("parts", meta.parts.size(), kPartsPerEntryMax);
  }
  if (meta.attributes.size() > kAttributesBytesMax) {
    return Over("attributes' bytes", meta.attributes.size(), kAttributesBytesMax);
  }
  const uint64_t payload = meta.payload_bytes();
  if (payload == 0 || payload > kEntryBytesMax) return Over("bytes", payload, kEntryBytesMax);
  return absl::OkStatus();
}

void EncodeSegmentHeader(const SegmentHeader& header, std::span<uint8_t> page) {
  std::memset(page.data(), 0, page.size());
  SegmentHeader written = header;
  written.checksum = 0;
  std::memcpy(page.data(), &written, sizeof(written));
  written.checksum = Checksum(page);
  std::memcpy(page.data(), &written, sizeof(written));
}

absl::StatusOr<SegmentHeader> DecodeSegmentHeader(std::span<const uint8_t> page) {
  if (page.size() < kSegmentHeaderBytes) return absl::DataLossError("segment header is cut short");
  const auto header = ReadHeader<SegmentHeader>(page);
  if (header.magic != kSegmentMagic) return absl::DataLossError("no segment header");
  if (header.checksum != ChecksumOf<SegmentHeader>(page.first(kSegmentHeaderBytes))) {
    return absl::DataLossError("segment header does not match its checksum");
  }
  if (header.version != kFormatVersion) {
    return absl::FailedPreconditionError(absl::StrCat("written by format version ", header.version,
                                                      ", this program has version ",
                                                      kFormatVersion));
  }
  if (header.zero != 0 ||
      !AllZero(page.first(kSegmentHeaderBytes).subspan(sizeof(SegmentHeader)))) {
    return absl::DataLossError("segment header holds what this format has not");
  }
  return header;
}

void EncodeRecordHeader(const EntryMeta& meta, const RecordLocation& location, uint64_t tag,
                        std::span<uint8_t> out) {
  std::memset(out.data(), 0, out.size());
  RecordHeader header;
  header.header_bytes = static_cast<uint32_t>(RecordHeaderBytes(meta));
  header.segment = location.segment;
  header.offset = location.offset;
  header.tag = tag;
  header.sequence = location.sequence;
  header.payload_bytes = meta.payload_bytes();
  header.part_count = static_cast<uint32_t>(meta.parts.size());
  header.attributes_bytes = static_cast<uint16_t>(meta.attributes.size());
  header.kind = static_cast<uint8_t>(meta.key.kind);
  std::memcpy(header.digest, meta.key.digest.bytes.data(), sizeof(header.digest));
  uint8_t* at = out.data() + sizeof(header);
  for (const EntryPart& part : meta.parts) {
    const RecordPart written{.xxh3 = part.xxh3, .bytes = part.bytes};
    std::memcpy(at, &written, sizeof(written));
    at += sizeof(written);
  }
  std::memcpy(at, meta.attributes.data(), meta.attributes.size());
  std::memcpy(out.data(), &header, sizeof(header));
  header.checksum = Checksum(out.first(header.header_bytes));
  std::memcpy(out.data(), &header, sizeof(header));
}

uint64_t PeekRecordHeaderBytes(std::span<const uint8_t> first_unit) {
  if (first_unit.size() < kIoAlignment) return 0;
  const auto header = ReadHeader<RecordHeader>(first_unit);
  const bool possible = header.magic == kRecordMagic && header.header_bytes != 0 &&
                        header.header_bytes % kIoAlignment == 0 &&
                        header.header_bytes <= kRecordHeaderBytesMax;
  return possible ? header.header_bytes : 0;
}

absl::StatusOr<CatalogEntry> DecodeRecordHeader(std::span<const uint8_t> bytes, uint64_t segment,
                                                uint64_t offset, uint64_t tag) {
  const uint64_t header_bytes = PeekRecordHeaderBytes(bytes);
  if (header_bytes == 0 || header_bytes > bytes.size()) {
    return absl::DataLossError("no record header");
  }
  bytes = bytes.first(header_bytes);
  const auto header = ReadHeader<RecordHeader>(bytes);
  if (header.checksum != ChecksumOf<RecordHeader>(bytes)) {
    return absl::DataLossError("record header does not match its checksum");
  }
  if (header.version != kFormatVersion) {
    return absl::DataLossError(
        absl::StrCat("record of format ", header.version, ", this is ", kFormatVersion));
  }
  if (header.segment != segment || header.offset != offset || header.tag != tag) {
    return absl::DataLossError("record of another place or another store");
  }
  CatalogEntry entry;
  std::memcpy(entry.meta.key.digest.bytes.data(), header.digest, sizeof(header.digest));
  entry.meta.key.kind = static_cast<EntryKind>(header.kind);
  if (header.part_count > kPartsPerEntryMax || header.attributes_bytes > kAttributesBytesMax ||
      sizeof(header) + header.part_count * sizeof(RecordPart) + header.attributes_bytes >
          header_bytes) {
    return absl::DataLossError("record header over its bounds");
  }
  // The checksum holds, so only a writer's mistake can fail from here on; it must not spread.
  const uint64_t used =
      sizeof(header) + header.part_count * sizeof(RecordPart) + uint64_t{header.attributes_bytes};
  if (RoundUpToIo(used) != header_bytes || !AllZero(bytes.subspan(used))) {
    return absl::DataLossError("record header contradicts itself");
  }
  uint32_t reserved = header.zero;
  const uint8_t* at = bytes.data() + sizeof(header);
  for (uint32_t i = 0; i < header.part_count; ++i, at += sizeof(RecordPart)) {
    RecordPart part;
    std::memcpy(&part, at, sizeof(part));
    reserved |= part.zero;
    entry.meta.parts.push_back({.bytes = part.bytes, .xxh3 = part.xxh3});
  }
  entry.meta.attributes.assign(reinterpret_cast<const char*>(at), header.attributes_bytes);
  if (!ValidateMeta(entry.meta).ok() || entry.meta.payload_bytes() != header.payload_bytes ||
      reserved != 0) {
    return absl::DataLossError("record header contradicts itself");
  }
  entry.location = {.segment = segment,
                    .offset = offset,
                    .bytes = RecordBytes(entry.meta),
                    .sequence = header.sequence};
  return entry;
}

absl::Status VerifyParts(const EntryMeta& meta, std::span<const uint8_t> payload) {
  uint64_t at = 0;
  for (size_t i = 0; i < meta.parts.size(); ++i) {
    const EntryPart& part = meta.parts[i];
    if (part.bytes > payload.size() - at) {
      return absl::DataLossError(absl::StrCat("payload ends within part ", i));
    }
    if (Checksum(payload.subspan(at, part.bytes)) != part.xxh3) {
      return absl::DataLossError(absl::StrCat("part ", i, " of ", meta.parts.size(), " (",
                                              part.bytes, " bytes) does not match its checksum"));
    }
    at += part.bytes;
  }
  return absl::OkStatus();
}

}  // namespace cairn::store
