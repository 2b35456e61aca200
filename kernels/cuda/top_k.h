// top_k.h: the k largest of each token's scores, on the GPU: exactly kernels/cpu/top_k.h's choice.
//
// Ties go to the lower index; +0 and -0 tie; the choice is written ascending by index. All counting
// is in integers, so it does not depend on how the work is spread.
//
// Threads:   any; nothing waits for the host.
// Ownership: all pointers are the caller's device memory.
// Errors:    INVALID_ARGUMENT for a shape out of bounds; else what the launch says.
#ifndef CAIRN_KERNELS_CUDA_TOP_K_H_
#define CAIRN_KERNELS_CUDA_TOP_K_H_

#include <cstdint>

#include "kernels/cuda/device.h"
#include "store/base/status.h"

namespace cairn::kernels::cuda {

// Rows of a million tokens, one for four.
inline constexpr int64_t kTopKRowsMax = 262144;

struct TopKRows {
  int64_t tokens;
  const float* scores;  // token t's at scores + t * stride; read only where counts[t] > k
  int64_t stride;
  const int32_t* counts;  // [tokens] on the device: scores that token t has
  int64_t rows_max;       // no count is larger; at most kTopKRowsMax
  int64_t k;
  int32_t* indices;  // [tokens, k]: min(counts[t], k) indices, then -1
};

absl::Status TopK(const TopKRows& rows, Stream stream);

}  // namespace cairn::kernels::cuda

#endif  // CAIRN_KERNELS_CUDA_TOP_K_H_
