// embedding.h: the embedding, which stays in the model's file: a token takes one row of it, a few
// kilobytes, so a row is read when a token needs it, through the page cache.
//
// Threads:   immutable.
// Ownership: keeps the file open.
// Errors:    DATA_LOSS if the file was changed or truncated since it was opened.
#ifndef CAIRN_ENGINE_FORWARD_EMBEDDING_H_
#define CAIRN_ENGINE_FORWARD_EMBEDDING_H_

#include <cstdint>
#include <memory>
#include <span>

#include "engine/model/weights.h"
#include "store/base/status.h"

namespace cairn::engine {

class Embedding {
 public:
  explicit Embedding(const Weights& weights);

  int64_t dim() const { return dim_; }
  // out [tokens, dim]: the tokens' rows. REQUIRES: the tokens are in the vocabulary.
  absl::Status Rows(std::span<const int32_t> tokens, float* out) const;

 private:
  std::shared_ptr<const TensorFile> tensors_;
  const MappedFile* file_;  // the one of tensors_ that has it
  uint64_t offset_;
  int64_t dim_;
  bool bf16_;
};

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_FORWARD_EMBEDDING_H_
