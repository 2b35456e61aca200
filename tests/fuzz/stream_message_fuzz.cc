// Messages of FetchStream (cache/client/stream_message.h), read without protobuf where that is
// possible: whatever bytes arrive, and however they are cut into slices, both readings agree.
//
// cut u8, then the message.
#include "cache/client/stream_message.h"

#include "tests/fuzz/fuzz_input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cairn::cache;
  namespace v1 = cairn::v1;
  cairn::fuzz::FuzzInput input(data, size);
  const size_t cut = input.Take<uint8_t>();
  const std::string bytes = input.TakeRestText();
  const size_t at = std::min(cut, bytes.size());
  const grpc::Slice slices[] = {grpc::Slice(bytes.substr(0, at)), grpc::Slice(bytes.substr(at))};
  const absl::StatusOr<StreamMessage> message = ParseStreamMessage(grpc::ByteBuffer(slices, 2));
  v1::FetchChunk chunk;
  FUZZ_CHECK(message.ok() == chunk.ParseFromString(bytes));
  if (!message.ok()) {
    cairn::fuzz::CheckRefusal(message.status());
    FUZZ_CHECK(absl::IsUnavailable(message.status()));
    return 0;
  }
  FUZZ_CHECK(message->head.has_value() == chunk.has_head());
  if (chunk.has_head()) {
    FUZZ_CHECK(message->head->SerializeAsString() == chunk.head().SerializeAsString());
    return 0;
  }
  std::string joined;
  for (const grpc::Slice& slice : message->data) {
    joined.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  FUZZ_CHECK(joined == chunk.data() && message->data_bytes == joined.size());
  return 0;
}
