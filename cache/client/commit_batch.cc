#include "cache/client/commit_batch.h"

#include "cache/client/protocol.h"
#include "store/base/limits.h"

namespace cairn::cache {

uint64_t PayloadBytes(const CommitItem& item) {
  uint64_t sum = 0;
  for (const EntryPart& part : item.parts) sum += part.bytes;
  return sum;
}

absl::Status CheckItem(const CommitItem& item) {
  if (item.staging == nullptr) return absl::InvalidArgumentError("commit item without staging");
  if (item.parts.empty() || item.parts.size() > kPartsPerEntryMax) {
    return absl::InvalidArgumentError(absl::StrCat("commit item of ", item.parts.size(),
                                                   " parts, must have 1 to ", kPartsPerEntryMax));
  }
  if (PayloadBytes(item) > item.staging->bytes.size()) {
    return absl::InvalidArgumentError(absl::StrCat("commit item of ", PayloadBytes(item),
                                                   " bytes in staging of ",
                                                   item.staging->bytes.size()));
  }
  return absl::OkStatus();
}

void EncodeItem(const CommitItem& item, v1::CommitItem* out) {
  out->set_reservation(item.reservation);
  for (const EntryPart& part : item.parts) {
    out->add_part_bytes(part.bytes);
    out->add_part_xxh3(part.xxh3);
  }
}

size_t BatchOf(std::span<const CommitItem> items, uint64_t bytes_max) {
  size_t count = 0;
  uint64_t bytes = 0;
  while (count < items.size() && count < kEntriesPerCommitMax) {
    bytes += PayloadBytes(items[count]);
    if (count > 0 && bytes > bytes_max) break;
    ++count;
  }
  return count;
}

}  // namespace cairn::cache
