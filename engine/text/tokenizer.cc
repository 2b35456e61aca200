#include "engine/text/tokenizer.h"

#include "engine/model/file_io.h"
#include "engine/text/byte_tokenizer.h"

namespace cairn::engine {

absl::Status Tokenizer::Check(std::span<const int32_t> ids) const {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= 0 && ids[i] < vocab()) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("token ", i, ": id ", ids[i], " is outside of the vocabulary of ", vocab()));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> Tokenizer::Decode(std::span<const int32_t> ids,
                                              bool skip_special) const {
  CAIRN_RETURN_IF_ERROR(Check(ids));
  std::string bytes;
  for (const int32_t id : ids) {
    if (!skip_special || !IsSpecial(id)) bytes += Bytes(id);
  }
  return IsUtf8(bytes) ? bytes : ReplaceBrokenUtf8(bytes);
}

absl::StatusOr<std::string> StreamDecoder::Feed(int32_t id) {
  CAIRN_RETURN_IF_ERROR(tokenizer_.Check({&id, 1}));
  if (skip_special_ && tokenizer_.IsSpecial(id)) return std::string();
  return stream_.Feed(tokenizer_.Bytes(id));
}

absl::StatusOr<std::unique_ptr<Tokenizer>> TokenizerOf(const std::string& model_directory,
                                                       const std::string& file, int64_t vocab) {
  const std::string path = file.empty() ? model_directory + "/tokenizer.json" : file;
  if (file.empty() && !FileExists(path)) return std::make_unique<ByteTokenizer>(vocab);
  return LoadTokenizer(path, vocab);
}

}  // namespace cairn::engine
