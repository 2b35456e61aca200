// What the cache keeps beside an entry (cache/core/attributes.h).
#include "cache/core/attributes.h"

#include "tests/fuzz/fuzz_input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cairn::cache;
  const std::string bytes = cairn::fuzz::FuzzInput(data, size).TakeRestText();
  const absl::StatusOr<EntryAttributes> attributes = DecodeAttributes(bytes);
  if (!attributes.ok()) {
    cairn::fuzz::CheckRefusal(attributes.status());
    FUZZ_CHECK(absl::IsDataLoss(attributes.status()));
    return 0;
  }
  FUZZ_CHECK(Consistent(*attributes));
  FUZZ_CHECK(attributes->index < cairn::kBlocksPerPrefixMax);
  FUZZ_CHECK(EncodeAttributes(*attributes) == bytes);
  return 0;
}
