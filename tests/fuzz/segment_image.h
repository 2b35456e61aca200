// segment_image.h: a small segment file made by steps that a fuzzer chooses: whole records, raw
// bytes, flips, units copied elsewhere, checksums mended. So few bytes of input make an image that
// gets far into the scanner.
//
// Threads: values. Units: bytes; positions in steps are I/O units of kIoAlignment.
#ifndef CAIRN_TESTS_FUZZ_SEGMENT_IMAGE_H_
#define CAIRN_TESTS_FUZZ_SEGMENT_IMAGE_H_

#include <vector>

#include "store/base/checksum.h"
#include "store/device/file_system.h"
#include "store/segment/record_format.h"
#include "tests/fuzz/fuzz_input.h"

namespace cairn::fuzz {

class SegmentImage {
 public:
  static constexpr uint64_t kUnits = 24;

  enum Step : uint8_t { kEnd, kRecord, kRaw, kFlip, kCopy, kSkip, kSeal, kSteps };

  // With a sound header page.
  SegmentImage(const store::StoreUuid& store, uint64_t segment)
      : segment_(segment), tag_(store::SegmentTag(store, segment)), bytes_(kUnits * kIoAlignment) {
    const std::span<uint8_t> page = std::span(bytes_).first(kIoAlignment);
    store::EncodeSegmentHeader({.segment = segment, .tag = tag_, .store = store}, page);
  }

  // Takes steps until kEnd or the input's end.
  void Build(FuzzInput& input) {
    while (!input.empty()) {
      const auto step = static_cast<Step>(input.Take<uint8_t>() % kSteps);
      if (step == kEnd) return;
      if (step == kRecord) {
        AddRecord(input);
      } else if (step == kSkip) {
        at_ += input.Take<uint8_t>() % 4 * kIoAlignment;
      } else {
        damaged_ = true;
        Damage(step, input);
      }
    }
  }

  const std::vector<uint8_t>& bytes() const { return bytes_; }
  const std::vector<store::CatalogEntry>& records() const { return records_; }
  bool damaged() const { return damaged_; }  // some step may have spoiled a record

  // The file has this image, durably.
  void Write(store::FileSystem& files, store::File& file) const {
    store::IoBuffer buffer(bytes_.size());
    std::copy(bytes_.begin(), bytes_.end(), buffer.bytes().begin());
    store::IoRequest write = store::IoRequest::Write(file, 0, buffer.bytes());
    files.Submit({&write, 1});
    FUZZ_CHECK_OK(write.status);
    FUZZ_CHECK_OK(file.Sync());
  }

 private:
  std::span<uint8_t> Unit(uint8_t number) {
    return std::span(bytes_).subspan(number % kUnits * kIoAlignment, kIoAlignment);
  }

  // key u8, sequence u8, parts u8, bytes of each u16
  void AddRecord(FuzzInput& input) {
    store::CatalogEntry entry;
    const auto key = input.Take<uint8_t>();
    entry.meta.key.digest.bytes.fill(key);
    entry.location = {.segment = segment_, .offset = at_, .sequence = input.Take<uint8_t>()};
    entry.meta.attributes = "a";
    std::vector<uint8_t> payload;
    for (int parts = 1 + input.Take<uint8_t>() % 3; parts > 0; --parts) {
      const std::vector<uint8_t> part(1 + input.Take<uint16_t>() % 9000,
                                      static_cast<uint8_t>(key + parts));
      entry.meta.parts.push_back(
          {.bytes = static_cast<uint32_t>(part.size()), .xxh3 = Checksum(part)});
      payload.insert(payload.end(), part.begin(), part.end());
    }
    entry.location.bytes = store::RecordBytes(entry.meta);
    if (at_ + entry.location.bytes > bytes_.size()) return;
    const uint64_t header = store::RecordHeaderBytes(entry.meta);
    store::EncodeRecordHeader(entry.meta, entry.location, tag_,
                              std::span(bytes_).subspan(at_, header));
    std::copy(payload.begin(), payload.end(),
              bytes_.begin() + static_cast<std::ptrdiff_t>(at_ + header));
    at_ += entry.location.bytes;
    records_.push_back(std::move(entry));
  }

  // unit u8, then what the step needs
  void Damage(Step step, FuzzInput& input) {
    const std::span<uint8_t> unit = Unit(input.Take<uint8_t>());
    if (step == kSeal) return Seal(unit);
    if (step == kCopy) {
      const std::span<uint8_t> from = Unit(input.Take<uint8_t>());
      std::memmove(unit.data(), from.data(), unit.size());
      return;
    }
    const std::span<uint8_t> room = unit.subspan(input.Take<uint16_t>() % unit.size());
    if (step == kFlip) {
      room[0] ^= static_cast<uint8_t>(1 + input.Take<uint8_t>() % 255);
      return;
    }
    const std::span<const uint8_t> raw =
        input.TakeBytes(std::min<size_t>(room.size(), input.Take<uint8_t>()));
    std::copy(raw.begin(), raw.end(), room.begin());
  }

  static void Seal(std::span<uint8_t> unit) {
    if (store::PeekRecordHeaderBytes(unit) != unit.size()) return;
    store::RecordHeader header;
    std::memcpy(&header, unit.data(), sizeof(header));
    header.checksum = 0;
    std::memcpy(unit.data(), &header, sizeof(header));
    header.checksum = Checksum(unit);
    std::memcpy(unit.data(), &header, sizeof(header));
  }

  const uint64_t segment_;
  const uint64_t tag_;
  std::vector<uint8_t> bytes_;
  std::vector<store::CatalogEntry> records_;
  uint64_t at_ = kIoAlignment;
  bool damaged_ = false;
};

}  // namespace cairn::fuzz

#endif  // CAIRN_TESTS_FUZZ_SEGMENT_IMAGE_H_
