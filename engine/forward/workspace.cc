#include "engine/forward/workspace.h"

#include <algorithm>
#include <new>

namespace cairn::engine {
namespace {

constexpr int64_t kAlignFloats = 16;
constexpr int64_t kChunkFloats = 4 << 20;

void FreeFloats(float* p) { ::operator delete[](p, std::align_val_t{64}); }

}  // namespace

float* Workspace::Floats(int64_t count) {
  count = (count + kAlignFloats - 1) / kAlignFloats * kAlignFloats;
  while (chunk_ < chunks_.size() && used_ + count > chunks_[chunk_].size) {
    ++chunk_;
    used_ = 0;
  }
  if (chunk_ == chunks_.size()) {
    const int64_t size = std::max(count, kChunkFloats);
    auto* floats = static_cast<float*>(
        ::operator new[](static_cast<size_t>(size) * sizeof(float), std::align_val_t{64}));
    chunks_.push_back({{floats, FreeFloats}, size});
  }
  float* out = chunks_[chunk_].floats.get() + used_;
  used_ += count;
  int64_t taken = used_;
  for (size_t i = 0; i < chunk_; ++i) taken += chunks_[i].size;
  peak_ = std::max(peak_, taken);
  return out;
}

}  // namespace cairn::engine
