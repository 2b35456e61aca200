// Keys and values of the catalog (store/index/catalog_codec.h).
//
// flags u8, key length u8, key, value; the flags can mend the value's checksum.
#include "store/base/checksum.h"
#include "store/index/catalog_codec.h"
#include "store/segment/record_format.h"
#include "tests/fuzz/fuzz_input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cairn::store;
  constexpr uint8_t kSeal = 1;
  cairn::fuzz::FuzzInput input(data, size);
  const auto flags = input.Take<uint8_t>();
  const std::string key = input.TakeText(input.Take<uint8_t>());
  std::string value = input.TakeRestText();
  if ((flags & kSeal) != 0) {
    const std::string covered = key + value;
    const uint64_t checksum =
        cairn::Checksum({reinterpret_cast<const uint8_t*>(covered.data()), covered.size()});
    value.append(reinterpret_cast<const char*>(&checksum), sizeof(checksum));
  }
  const absl::StatusOr<CatalogEntry> entry = DecodeEntry(key, value);
  if (!entry.ok()) {
    cairn::fuzz::CheckRefusal(entry.status());
    FUZZ_CHECK(absl::IsDataLoss(entry.status()));
    return 0;
  }
  FUZZ_CHECK_OK(ValidateMeta(entry->meta));
  FUZZ_CHECK(entry->location.bytes >= entry->meta.payload_bytes());
  FUZZ_CHECK(entry->location.offset + entry->location.bytes >= entry->location.offset);
  FUZZ_CHECK(EncodeEntryKey(entry->meta.key) == key);
  FUZZ_CHECK(EncodeEntryValue(*entry) == value);
  return 0;
}
