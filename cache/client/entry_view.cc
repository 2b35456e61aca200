// Reading entries that may change under the reader.
#include <algorithm>
#include <array>
#include <cstring>
#include <future>
#include <utility>

#include "cache/client/cache_api.h"
#include "store/base/checksum.h"
#include "store/base/limits.h"
#include "store/base/memory_copy.h"

namespace cairn::cache {
namespace {

// The parts of one entry, of either kind, in memory of our own.
class PartList {
 public:
  // DATA_LOSS: the mapped table is not the one that was leased, or parts and payload differ in
  // size.
  absl::Status Load(const EntryView& entry) {
    count_ = entry.part_table != nullptr ? entry.part_bytes.size() : entry.parts.size();
    if (count_ == 0 || count_ > kPartsPerEntryMax) {
      return absl::DataLossError(absl::StrCat("an entry of ", count_, " parts"));
    }
    uint64_t bytes = 0;
    if (entry.part_table != nullptr) {
      // Checked after the copy: the table too may be overwritten.
      std::memcpy(xxh3_.data(), entry.part_table, count_ * sizeof(uint64_t));
      const auto* table = reinterpret_cast<const uint8_t*>(xxh3_.data());
      if (Checksum({table, count_ * sizeof(uint64_t)}) != entry.table_xxh3) {
        return absl::DataLossError("the part table is not the leased entry's");
      }
      for (size_t i = 0; i < count_; ++i) bytes += bytes_[i] = entry.part_bytes[i];
    } else {
      for (size_t i = 0; i < count_; ++i) {
        bytes += bytes_[i] = entry.parts[i].bytes;
        xxh3_[i] = entry.parts[i].xxh3;
      }
    }
    if (bytes == entry.payload.size()) return absl::OkStatus();
    return absl::DataLossError(
        absl::StrCat("an entry of ", entry.payload.size(), " bytes whose parts have ", bytes));
  }

  size_t size() const { return count_; }
  EntryPart operator[](size_t i) const { return {bytes_[i], xxh3_[i]}; }

  // `xxh3_of` gives the checksum of the payload's next piece.
  template <typename Pass>
  absl::Status Check(std::span<const uint8_t> payload, Pass xxh3_of) const {
    for (size_t i = 0; i < count_; ++i) {
      if (xxh3_of(payload.first(bytes_[i])) != xxh3_[i]) {
        return absl::DataLossError(
            absl::StrCat("part ", i, " of ", count_, " does not match its checksum"));
      }
      payload = payload.subspan(bytes_[i]);
    }
    return absl::OkStatus();
  }

 private:
  size_t count_ = 0;
  std::array<uint64_t, kPartsPerEntryMax> xxh3_;
  std::array<uint32_t, kPartsPerEntryMax> bytes_;
};

absl::Status CopyEntry(const EntryView& entry, StreamingWriter& writer) {
  PartList parts;
  CAIRN_RETURN_IF_ERROR(parts.Load(entry));
  return parts.Check(entry.payload,
                     [&writer](std::span<const uint8_t> part) { return writer.Append(part); });
}

absl::Status CheckRoom(uint64_t bytes, std::span<const uint8_t> destination) {
  if (bytes <= destination.size()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("destination of ", destination.size(), " bytes for ", bytes));
}

}  // namespace

absl::StatusOr<std::vector<EntryPart>> EntryView::Parts() const {
  PartList list;
  CAIRN_RETURN_IF_ERROR(list.Load(*this));
  std::vector<EntryPart> out;
  out.reserve(list.size());
  for (size_t i = 0; i < list.size(); ++i) out.push_back(list[i]);
  return out;
}

absl::Status EntryView::Verify() const {
  PartList list;
  CAIRN_RETURN_IF_ERROR(list.Load(*this));
  return list.Check(payload, Checksum);
}

absl::Status EntryView::CopyOut(std::span<uint8_t> destination) const {
  CAIRN_RETURN_IF_ERROR(CheckRoom(payload.size(), destination));
  StreamingWriter writer(destination.data());
  return CopyEntry(*this, writer);
}

uint64_t FetchedPrefix::payload_bytes() const {
  uint64_t bytes = checkpoint.has_value() ? checkpoint->payload.size() : 0;
  for (const EntryView& entry : rows) bytes += entry.payload.size();
  return bytes;
}

absl::Status FetchedPrefix::CopyOut(std::span<uint8_t> destination, int threads) const {
  const uint64_t bytes = payload_bytes();
  CAIRN_RETURN_IF_ERROR(CheckRoom(bytes, destination));
  const size_t entries = rows.size() + (checkpoint.has_value() ? 1 : 0);
  const auto payload = [&](size_t i) -> const EntryView& {
    return i < rows.size() ? rows[i] : *checkpoint;
  };
  const auto copy = [&](size_t begin, size_t end, uint8_t* to) -> absl::Status {
    StreamingWriter writer(to);
    for (size_t i = begin; i < end; ++i) {
      if (absl::Status status = CopyEntry(payload(i), writer); !status.ok()) {
        const std::string what = i < rows.size() ? absl::StrCat("rows of block ", i) : "checkpoint";
        return absl::Status(status.code(), absl::StrCat(what, ": ", std::string(status.message())));
      }
    }
    return absl::OkStatus();
  };

  const size_t shares = std::min(static_cast<size_t>(std::max(threads, 1)), entries);
  std::vector<std::future<absl::Status>> results;
  size_t begin = 0;
  uint64_t copied = 0;
  for (size_t share = 0; share < shares; ++share) {
    uint8_t* const to = destination.data() + copied;
    size_t end = begin;
    for (; end < entries && copied < bytes * (share + 1) / shares; ++end) {
      copied += payload(end).payload.size();
    }
    // The first is this thread's; so are all where no thread is to be had.
    const auto how =
        share == 0 ? std::launch::deferred : std::launch::async | std::launch::deferred;
    results.push_back(std::async(how, copy, begin, end, to));
    begin = end;
  }
  absl::Status status;
  for (std::future<absl::Status>& result : results) status.Update(result.get());
  return status;
}

}  // namespace cairn::cache
