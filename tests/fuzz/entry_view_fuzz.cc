// EntryView (cache/client/cache_api.h) over tables and payloads that somebody forged: what verifies
// is copied out as it lies there, by either way, and nothing else.
//
// flags u8, parts u8, size of each u16, claimed payload size u16, table checksum u64, the checksums
// (8 B each), then the payload. The flags mend the parts' checksums, the table's, and the size.
#include <vector>

#include "cache/client/cache_api.h"
#include "store/base/checksum.h"
#include "store/base/limits.h"
#include "tests/fuzz/fuzz_input.h"

namespace cairn::cache {
namespace {

using fuzz::FuzzInput;

constexpr uint8_t kMapped = 1, kMendParts = 2, kMendTable = 4, kMendSize = 8, kManyParts = 16;

struct Forged {
  explicit Forged(FuzzInput& input) : flags(input.Take<uint8_t>()) {
    const size_t count = input.Take<uint8_t>() * ((flags & kManyParts) != 0 ? 4u : 1u);
    uint64_t sum = 0;
    for (size_t i = 0; i < count; ++i) sizes.push_back(input.Take<uint16_t>() % 512);
    for (const uint32_t bytes : sizes) sum += bytes;
    const auto claimed = input.Take<uint16_t>();
    table_xxh3 = input.Take<uint64_t>();
    for (size_t i = 0; i < count; ++i) table.push_back(input.Take<uint64_t>());
    payload.resize((flags & kMendSize) != 0 ? sum : claimed % 4096);
    const auto bytes = input.TakeBytes(payload.size());
    std::copy(bytes.begin(), bytes.end(), payload.begin());
    if ((flags & kMendParts) != 0) MendParts();
    if ((flags & kMendTable) != 0) table_xxh3 = TableChecksum();
  }

  void MendParts() {
    std::span<const uint8_t> left = payload;
    for (size_t i = 0; i < sizes.size(); ++i) {
      const size_t here = std::min<size_t>(sizes[i], left.size());
      table[i] = Checksum(left.first(here));
      left = left.subspan(here);
    }
  }
  uint64_t TableChecksum() const {
    return Checksum({reinterpret_cast<const uint8_t*>(table.data()), table.size() * 8});
  }
  EntryView View() const {
    EntryView view{.key = {}, .payload = payload};
    if ((flags & kMapped) != 0) {
      view.part_bytes = sizes;
      view.part_table = reinterpret_cast<const uint8_t*>(table.data());
      view.table_xxh3 = table_xxh3;
      return view;
    }
    for (size_t i = 0; i < sizes.size(); ++i) view.parts.push_back({sizes[i], table[i]});
    return view;
  }

  uint8_t flags;
  std::vector<uint32_t> sizes;
  std::vector<uint64_t> table;
  std::vector<uint8_t> payload;
  uint64_t table_xxh3 = 0;
};

// The definition, slowly.
bool Sound(const Forged& forged) {
  if (forged.sizes.empty() || forged.sizes.size() > kPartsPerEntryMax) return false;
  if ((forged.flags & kMapped) != 0 && forged.table_xxh3 != forged.TableChecksum()) return false;
  size_t at = 0;
  for (size_t i = 0; i < forged.sizes.size(); ++i) {
    if (forged.sizes[i] > forged.payload.size() - at) return false;
    if (Checksum(std::span(forged.payload).subspan(at, forged.sizes[i])) != forged.table[i]) {
      return false;
    }
    at += forged.sizes[i];
  }
  return at == forged.payload.size();
}

void CheckLoss(const absl::Status& status) {
  fuzz::CheckRefusal(status);
  FUZZ_CHECK(absl::IsDataLoss(status));
}

}  // namespace
}  // namespace cairn::cache

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cairn::cache;
  cairn::fuzz::FuzzInput input(data, size);
  const Forged forged(input);
  const EntryView view = forged.View();
  std::vector<uint8_t> out(forged.payload.size());
  const absl::Status verified = view.Verify();
  const absl::Status copied = view.CopyOut(out);
  FUZZ_CHECK(verified.ok() == Sound(forged) && copied.ok() == verified.ok());
  if (!verified.ok()) {
    CheckLoss(verified);
    CheckLoss(copied);
    return 0;
  }
  FUZZ_CHECK(out == forged.payload);
  FUZZ_CHECK(view.Parts().ok() && view.Parts()->size() == forged.sizes.size());
  if (!out.empty()) {
    FUZZ_CHECK(absl::IsInvalidArgument(view.CopyOut(std::span(out).first(out.size() - 1))));
  }
  return 0;
}
