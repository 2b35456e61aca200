// Text to tokens and back (engine/text/byte_tokenizer.h), and the decoding of a stream.
//
// vocabulary u16, then text, which is also read as ids.
#include <cstring>
#include <vector>

#include "engine/text/byte_tokenizer.h"
#include "tests/fuzz/fuzz_input.h"

namespace {

using namespace cairn::engine;

void CheckStream(const Tokenizer& tokenizer, const std::vector<int32_t>& ids,
                 const std::string& whole) {
  StreamDecoder stream(tokenizer);
  std::string text;
  for (const int32_t id : ids) {
    const absl::StatusOr<std::string> more = stream.Feed(id);
    FUZZ_CHECK_OK(more.status());
    text += *more;
  }
  text += stream.Finish();
  FUZZ_CHECK(text == whole);
  FUZZ_CHECK(IsUtf8(whole));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  cairn::fuzz::FuzzInput input(data, size);
  const ByteTokenizer tokenizer(1 + input.Take<uint16_t>());
  const std::string text = input.TakeRestText();
  for (const bool literal : {true, false}) {
    const std::vector<TextRange> ranges(literal ? 1 : 0, TextRange{0, text.size()});
    const absl::StatusOr<std::vector<int32_t>> ids = tokenizer.Encode(text, ranges);
    if (!ids.ok()) {
      cairn::fuzz::CheckRefusal(ids.status());
      FUZZ_CHECK(tokenizer.vocab() < 256);
      continue;
    }
    FUZZ_CHECK_OK(tokenizer.Check(*ids));
    std::string bytes;
    for (const int32_t id : *ids) {
      FUZZ_CHECK(!literal || id < 256);  // a user's words cannot say a mark
      bytes += tokenizer.Bytes(id);
    }
    if (literal) FUZZ_CHECK(bytes == text);
    CheckStream(tokenizer, *ids, *tokenizer.Decode(*ids));
  }
  std::vector<int32_t> any(text.size() / sizeof(int32_t));
  if (!any.empty()) std::memcpy(any.data(), text.data(), any.size() * sizeof(int32_t));
  const absl::Status checked = tokenizer.Check(any);
  const absl::StatusOr<std::string> decoded = tokenizer.Decode(any);
  if (!checked.ok()) cairn::fuzz::CheckRefusal(checked);
  FUZZ_CHECK(decoded.ok() == checked.ok());
  if (decoded.ok()) CheckStream(tokenizer, any, *decoded);
  return 0;
}
