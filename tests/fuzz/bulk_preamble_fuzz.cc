// What a client of the bulk port says first (cache/client/bulk_protocol.h).
#include "cache/client/bulk_protocol.h"

#include "tests/fuzz/fuzz_input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cairn::cache;
  BulkPreamble preamble{};
  const auto bytes = cairn::fuzz::FuzzInput(data, size).TakeBytes(preamble.size());
  std::copy(bytes.begin(), bytes.end(), preamble.begin());
  const std::optional<std::string> ticket = DecodeBulkPreamble(preamble);
  if (!ticket.has_value()) {
    // Refused for its magic or its version only: any ticket is one until it is looked up.
    const BulkPreamble good = EncodeBulkPreamble(std::string(kTicketBytes, '\0'));
    FUZZ_CHECK(!std::equal(good.begin(), good.end() - kTicketBytes, preamble.begin()));
    return 0;
  }
  FUZZ_CHECK(ticket->size() == kTicketBytes);
  FUZZ_CHECK(EncodeBulkPreamble(*ticket) == preamble);
  return 0;
}
