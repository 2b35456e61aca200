// top_k_many.h: TopK where tokens are many and each fits a block of threads.
//
// As top_k.h.
#ifndef CAIRN_KERNELS_CUDA_TOP_K_MANY_H_
#define CAIRN_KERNELS_CUDA_TOP_K_MANY_H_

#include "kernels/cuda/top_k.h"

namespace cairn::kernels::cuda {

inline constexpr int64_t kTopKManyRowsMax = 32768;

// REQUIRES: a shape that TopK takes, and rows_max at most kTopKManyRowsMax.
absl::Status TopKMany(const TopKRows& rows, Stream stream);

}  // namespace cairn::kernels::cuda

#endif  // CAIRN_KERNELS_CUDA_TOP_K_MANY_H_
