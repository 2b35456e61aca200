// Text to tokens and back (engine/model/tokenizer.h).
//
// vocabulary u16, then text, which is also read as ids.
#include "engine/model/tokenizer.h"

#include <vector>

#include "tests/fuzz/fuzz_input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cairn::engine;
  cairn::fuzz::FuzzInput input(data, size);
  const ByteTokenizer tokenizer(1 + input.Take<uint16_t>());
  const std::string text = input.TakeRestText();
  const absl::StatusOr<std::vector<int32_t>> ids = tokenizer.Encode(text);
  if (ids.ok()) {
    FUZZ_CHECK_OK(tokenizer.Check(*ids));
    for (const int32_t id : *ids) FUZZ_CHECK(id < 256);  // text cannot say a mark
    FUZZ_CHECK(*tokenizer.Decode(*ids) == text);
  } else {
    cairn::fuzz::CheckRefusal(ids.status());
    FUZZ_CHECK(tokenizer.vocab() < 256);
  }
  std::vector<int32_t> any(text.size() / sizeof(int32_t));
  if (!any.empty()) std::memcpy(any.data(), text.data(), any.size() * sizeof(int32_t));
  const absl::Status checked = tokenizer.Check(any);
  const absl::StatusOr<std::string> decoded = tokenizer.Decode(any);
  if (!checked.ok()) cairn::fuzz::CheckRefusal(checked);
  FUZZ_CHECK(decoded.ok() == checked.ok());
  return 0;
}
