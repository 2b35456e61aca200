// tokens_file.h: a prompt as a file of token ids: a safetensors file whose tensor "tokens" is I32
// with one dimension. Whether the ids are in a model's vocabulary is not looked at here.
//
// Threads: pure. Errors: those of TensorFile::Open; NOT_FOUND without the tensor; INVALID_ARGUMENT
// for one of another type or shape.
#ifndef CAIRN_ENGINE_MODEL_TOKENS_FILE_H_
#define CAIRN_ENGINE_MODEL_TOKENS_FILE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "store/base/status.h"

namespace cairn::engine {

absl::StatusOr<std::vector<int32_t>> ReadTokensFile(const std::string& path);

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_MODEL_TOKENS_FILE_H_
