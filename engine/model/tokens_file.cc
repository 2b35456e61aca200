#include "engine/model/tokens_file.h"

#include <cstring>
#include <memory>

#include "engine/model/safetensors.h"

namespace cairn::engine {

absl::StatusOr<std::vector<int32_t>> ReadTokensFile(const std::string& path) {
  CAIRN_ASSIGN_OR_RETURN(const std::unique_ptr<TensorFile> file, TensorFile::Open(path));
  CAIRN_ASSIGN_OR_RETURN(const TensorView view, file->Get("tokens"));
  if (view.dtype != DType::kI32 || view.shape.size() != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": tensor tokens must be I32 with one dimension, not ",
                     DTypeName(view.dtype), " with ", view.shape.size()));
  }
  std::vector<int32_t> tokens(view.bytes.size() / sizeof(int32_t));
  if (tokens.empty()) return tokens;  // memcpy wants two addresses even for nothing
  std::memcpy(tokens.data(), view.bytes.data(), view.bytes.size());
  return tokens;
}

}  // namespace cairn::engine
