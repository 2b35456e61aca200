// compressor.h: the compressors of CSA (groups of 4 tokens, with overlap), of the indexer (the
// same, narrower) and of HCA (groups of 128): a step's projections and what is carried between
// steps to pooled rows and what is carried on (engine/forward/compressor.cc is the definition,
// spec 2.5). Norm, rotation and writing are those of any row: kv_writer.h, norms.h.
//
// A pooled value has the order and the bits of kernels/cpu's SoftmaxPool, however the tokens were
// cut into steps and whatever else is in the step.
//
// Pointers are the device's, rows aligned to 16 bytes.
//
// Threads: any; a state is in one launch at a time. Errors: INVALID_ARGUMENT, naming the bound.
#ifndef CAIRN_KERNELS_CUDA_COMPRESSOR_H_
#define CAIRN_KERNELS_CUDA_COMPRESSOR_H_

#include <cstdint>

#include "kernels/cuda/device.h"

namespace cairn::kernels::cuda {

// ratio 4: dim 32 to 512, a power of two; a token has 2 * dim values, of which the next group reads
// the first half. ratio 128: dim a multiple of 32, and a token has that many.
struct CompressorShape {
  int64_t ratio = 4;
  int64_t dim = 512;

  int64_t width() const { return ratio == 4 ? 2 * dim : dim; }
  // Tokens carried between steps: token t in slot t mod slots(). Two groups where they overlap, so
  // a token that is taken back has overwritten none that is read again.
  int64_t slots() const { return ratio == 4 ? 2 * ratio : ratio; }
  // What is carried: kv [slots][width], then score [slots][width] (ape added). Slots that hold no
  // token are not read: it need not be cleared.
  int64_t state_floats() const { return 2 * slots() * width(); }
};

// What a linear made of the step's tokens: row r's width() values at kv + r * stride.
struct CompressorInput {
  const float* kv = nullptr;
  const float* score = nullptr;
  int64_t stride = 0;
  const float* ape = nullptr;  // [ratio, width], added to score; null: it has been
};

// A sequence's tokens in the step: rows [first, first + count), the first at `position`. They close
// (position + count) / ratio - position / ratio groups, whose rows go to `out` and after it.
struct CompressorSpan {
  int64_t first = 0;
  int64_t count = 0;
  int64_t position = 0;
  int64_t out = 0;
  float* state = nullptr;
};

// pooled [.., dim] F32. `spans` is an array of the device; groups_max is how many groups the
// longest of them closes, or about that: it is the launch's width.
absl::Status PoolGroups(Stream stream, const CompressorShape& shape, const CompressorInput& input,
                        const CompressorSpan* spans, int64_t span_count, int64_t groups_max,
                        float* pooled);

}  // namespace cairn::kernels::cuda

#endif  // CAIRN_KERNELS_CUDA_COMPRESSOR_H_
