// attention_few.h: attention.h's way for few tokens, for attention.cu only.
//
// Threads, ownership, units, errors: attention.h.
#ifndef CAIRN_KERNELS_CUDA_ATTENTION_FEW_H_
#define CAIRN_KERNELS_CUDA_ATTENTION_FEW_H_

#include <algorithm>

#include "kernels/cuda/attention.h"

namespace cairn::kernels::cuda {

// Blocks of 64 rows that a list may have; an empty one has one.
inline int64_t FewBlocks(int64_t rows_max) { return std::max<int64_t>((rows_max + 63) / 64, 1); }

// REQUIRES: a batch that was checked, with scratch.
absl::Status AttendFew(const AttentionBatch& batch, Stream stream);

}  // namespace cairn::kernels::cuda

#endif  // CAIRN_KERNELS_CUDA_ATTENTION_FEW_H_
