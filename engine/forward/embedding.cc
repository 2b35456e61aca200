#include "engine/forward/embedding.h"

#include <cstring>
#include <vector>

#include "kernels/cpu/formats.h"

namespace cairn::engine {

Embedding::Embedding(const Weights& weights)
    : tensors_(weights.file),
      file_(&FileOf(*weights.file, weights.embed.weight.bytes)),
      offset_(OffsetIn(*file_, weights.embed.weight.bytes)),
      dim_(weights.embed.in),
      bf16_(weights.embed.weight.dtype == DType::kBF16) {}

absl::Status Embedding::Rows(std::span<const int32_t> tokens, float* out) const {
  const size_t bytes = static_cast<size_t>(dim_) * (bf16_ ? sizeof(uint16_t) : sizeof(float));
  std::vector<uint8_t> stored(bytes);
  for (const int32_t token : tokens) {
    CAIRN_RETURN_IF_ERROR(file_->ReadAt(offset_ + static_cast<uint64_t>(token) * bytes, stored));
    if (bf16_) {
      for (int64_t i = 0; i < dim_; ++i) {
        uint16_t value;
        std::memcpy(&value, stored.data() + i * static_cast<int64_t>(sizeof(value)), sizeof(value));
        out[i] = kernels::Bf16ToF32(value);
      }
    } else {
      std::memcpy(out, stored.data(), bytes);
    }
    out += dim_;
  }
  return file_->CheckUnchanged();
}

}  // namespace cairn::engine
