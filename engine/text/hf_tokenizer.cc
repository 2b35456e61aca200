#include "engine/text/hf_tokenizer.h"

#include "engine/model/file_io.h"

namespace cairn::engine {
namespace {

constexpr uint64_t kFileBytesMax = 256 << 20;

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer(const std::string& path, int64_t vocab) {
  CAIRN_ASSIGN_OR_RETURN(const std::string text, ReadWholeFile(path, kFileBytesMax));
  absl::StatusOr<TokenizerParts> parts = ParseTokenizerFile(text);
  absl::StatusOr<std::unique_ptr<Tokenizer>> made =
      parts.ok() ? HfTokenizer::Make(std::move(parts).value(), vocab) : parts.status();
  if (made.ok()) return made;
  return absl::Status(made.status().code(), absl::StrCat(path, ": ", made.status().message()));
}

absl::StatusOr<std::unique_ptr<Tokenizer>> HfTokenizer::Make(TokenizerParts parts, int64_t vocab) {
  if (static_cast<int64_t>(parts.bytes.size()) > vocab) {
    return absl::InvalidArgumentError(absl::StrCat("has the id ", parts.bytes.size() - 1,
                                                   ", but the model's vocabulary is ", vocab));
  }
  return std::unique_ptr<Tokenizer>(new HfTokenizer(std::move(parts), vocab));
}

std::optional<int32_t> HfTokenizer::Mark(std::string_view text) const {
  const auto it = parts_.marks.find(absl::string_view(text.data(), text.size()));
  if (it == parts_.marks.end()) return std::nullopt;
  return it->second;
}

std::string HfTokenizer::Bytes(int32_t id) const {
  const size_t index = static_cast<size_t>(id);
  return index < parts_.bytes.size() ? parts_.bytes[index] : std::string();
}

std::unique_ptr<BpeScratch> HfTokenizer::TakeScratch() const {
  MutexLock lock(&mutex_);
  if (idle_.empty()) return std::make_unique<BpeScratch>();
  std::unique_ptr<BpeScratch> scratch = std::move(idle_.back());
  idle_.pop_back();
  return scratch;
}

absl::StatusOr<std::vector<int32_t>> HfTokenizer::Encode(std::string_view text,
                                                         std::span<const TextRange> literal) const {
  if (text.size() > kTextBytesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("text of ", text.size(), " bytes; at most ", kTextBytesMax));
  }
  std::unique_ptr<BpeScratch> scratch = TakeScratch();
  std::vector<int32_t> ids;
  ids.reserve(text.size() / 4);
  absl::Status status;
  const auto word = [&](std::string_view piece) { parts_.bpe.Encode(piece, *scratch, ids); };
  parts_.added.Cut(text, literal, [&](std::optional<int32_t> id, std::string_view piece) {
    if (id) {
      ids.push_back(*id);
    } else if (IsUtf8(piece)) {
      status.Update(parts_.pre_tokenizer.Cut(piece, word));
    } else {
      status.Update(parts_.pre_tokenizer.Cut(ReplaceBrokenUtf8(piece), word));
    }
  });
  {
    MutexLock lock(&mutex_);
    idle_.push_back(std::move(scratch));
  }
  CAIRN_RETURN_IF_ERROR(status);
  return ids;
}

}  // namespace cairn::engine
