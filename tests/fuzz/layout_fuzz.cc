// Layout descriptors (cache/client/layout.h): bounds, identity, and the way over the wire.
//
// version u8 (0 is this version), model and numerics (length u8 each, as text), then components:
// name length u8, name, scope, tokens a row u8, rows u8, row bytes u32, scale bytes u8, repeats u8.
#include "cache/client/layout.h"

#include "cache/client/protocol.h"
#include "cache/service/validate.h"
#include "tests/fuzz/fuzz_input.h"

namespace cairn::cache {
namespace {

using fuzz::FuzzInput;

LayoutComponent TakeComponent(FuzzInput& input) {
  LayoutComponent out;
  out.name = input.TakeText(input.Take<uint8_t>());
  out.scope = static_cast<LayoutScope>(input.Take<uint8_t>());
  out.tokens_per_row = input.Take<uint8_t>();
  out.rows = input.Take<uint8_t>();
  out.row_bytes = input.Take<uint32_t>();
  out.scale_bytes = input.Take<uint8_t>();
  out.encoding = "x";
  return out;
}

LayoutDescriptor TakeLayout(FuzzInput& input) {
  LayoutDescriptor out;
  out.version = kLayoutVersion + input.Take<uint8_t>() % 2;
  out.model = input.TakeText(input.Take<uint8_t>());
  out.numerics = input.TakeText(input.Take<uint8_t>());
  while (!input.empty()) {
    const LayoutComponent component = TakeComponent(input);
    out.components.push_back(component);
    // So that few bytes reach the bounds on how many there may be.
    for (uint32_t copies = input.Take<uint8_t>() * 5u; copies > 0; --copies) {
      out.components.push_back(component);
      out.components.back().name += std::to_string(out.components.size());
    }
  }
  return out;
}

void CheckAccepted(const LayoutDescriptor& layout) {
  FUZZ_CHECK(layout.components.size() <= kLayoutComponentsMax);
  const EntryShapes shapes(layout);
  for (const auto& [parts, bytes] : {std::pair(shapes.rows, shapes.rows_bytes),
                                     std::pair(shapes.checkpoint, shapes.checkpoint_bytes)}) {
    FUZZ_CHECK(parts.size() <= kPartsPerEntryMax && bytes <= kEntryBytesMax);
    uint64_t sum = 0;
    for (const uint32_t part : parts) {
      FUZZ_CHECK(part > 0);
      sum += part;
    }
    FUZZ_CHECK(sum == bytes);
  }
  FUZZ_CHECK(shapes.rows_bytes > 0);
}

// Another layout has another name.
void CheckIdentity(const LayoutDescriptor& layout) {
  LayoutDescriptor other = layout;
  std::swap(other.model, other.numerics);
  FUZZ_CHECK((other == layout) == (other.Identity() == layout.Identity()));
  other = layout;
  other.components.back().row_bytes ^= 1;
  FUZZ_CHECK(other.Identity() != layout.Identity());
  other = layout;  // the same text, framed elsewhere
  other.numerics.insert(other.numerics.begin(), other.model.back());
  other.model.pop_back();
  FUZZ_CHECK(other.Identity() != layout.Identity());
}

}  // namespace
}  // namespace cairn::cache

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cairn::cache;
  namespace v1 = cairn::v1;
  cairn::fuzz::FuzzInput input(data, size);
  const LayoutDescriptor layout = TakeLayout(input);
  const absl::Status valid = layout.Validate();
  v1::SessionRequest request;
  request.set_protocol_version(kProtocolVersion);
  EncodeLayout(layout, request.mutable_layout());
  const absl::StatusOr<NamespaceSpec> decoded = DecodeSession(request);
  if (!valid.ok()) {
    cairn::fuzz::CheckRefusal(valid);
    // Only the core tells what to do about another version.
    FUZZ_CHECK(!decoded.ok() || layout.version != kLayoutVersion);
    return 0;
  }
  CheckAccepted(layout);
  CheckIdentity(layout);
  FUZZ_CHECK_OK(decoded.status());
  FUZZ_CHECK(decoded->layout == layout);
  return 0;
}
