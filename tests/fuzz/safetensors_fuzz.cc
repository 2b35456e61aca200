// Safetensors files and the tokens file, which is one (engine/model/safetensors.h, tokens_file.h).
//
// flags u8, then the file, or only its JSON and data behind a length (u16) that is put right.
#include "engine/model/safetensors.h"

#include <map>
#include <vector>

#include "engine/model/tokens_file.h"
#include "tests/fuzz/memory_file.h"

namespace cairn::engine {
namespace {

void CheckTensors(const TensorFile& file, size_t file_bytes) {
  std::map<const uint8_t*, size_t> ranges;  // begin -> bytes
  size_t total = 0;
  for (const auto& [name, view] : file.tensors()) {
    FUZZ_CHECK(!name.empty() && name.size() <= 256);
    uint64_t bytes = DTypeBytes(view.dtype);
    for (const int64_t dimension : view.shape) {
      FUZZ_CHECK(dimension >= 0);
      FUZZ_CHECK(!__builtin_mul_overflow(bytes, static_cast<uint64_t>(dimension), &bytes));
    }
    FUZZ_CHECK(bytes == view.bytes.size());
    total += bytes;
    if (bytes > 0) FUZZ_CHECK(ranges.emplace(view.bytes.data(), bytes).second);
    FUZZ_CHECK(file.Get(name).ok());
  }
  FUZZ_CHECK(total <= file_bytes);
  const uint8_t* end = nullptr;
  for (const auto& [begin, bytes] : ranges) {
    FUZZ_CHECK(end == nullptr || begin == end);  // no gap, no overlap
    end = begin + bytes;
  }
}

}  // namespace
}  // namespace cairn::engine

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cairn::engine;
  cairn::fuzz::FuzzInput input(data, size);
  constexpr uint8_t kMendLength = 1;
  std::vector<uint8_t> bytes;
  if ((input.Take<uint8_t>() & kMendLength) != 0) {
    const auto header = input.TakeBytes(input.Take<uint16_t>());
    for (int i = 0; i < 8; ++i) bytes.push_back(static_cast<uint8_t>(header.size() >> 8 * i));
    bytes.insert(bytes.end(), header.begin(), header.end());
  }
  const std::span<const uint8_t> rest = input.TakeRest();
  bytes.insert(bytes.end(), rest.begin(), rest.end());
  const std::string path = cairn::fuzz::MemoryFile(bytes);
  const absl::StatusOr<std::vector<int32_t>> tokens = ReadTokensFile(path);
  if (!tokens.ok()) cairn::fuzz::CheckRefusal(tokens.status());
  const absl::StatusOr<std::unique_ptr<TensorFile>> file = TensorFile::Open(path);
  if (!file.ok()) {
    cairn::fuzz::CheckRefusal(file.status());
    FUZZ_CHECK(!tokens.ok());
    return 0;
  }
  CheckTensors(**file, bytes.size());
  if (tokens.ok()) {
    FUZZ_CHECK(tokens->size() * sizeof(int32_t) == (*file)->Get("tokens")->bytes.size());
  }
  return 0;
}
