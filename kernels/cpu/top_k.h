// top_k.h: the lightning indexer's choice and the router's. Ties break toward the lower index,
// always.
//
// Threads: pure functions.
#ifndef CAIRN_KERNELS_CPU_TOP_K_H_
#define CAIRN_KERNELS_CPU_TOP_K_H_

#include <cstdint>
#include <vector>

namespace cairn::kernels {

// The indices of the k largest of n scores, ascending by index. k >= n gives all. +0 and -0 tie.
void TopK(const float* scores, int64_t n, int64_t k, std::vector<int32_t>& out);

}  // namespace cairn::kernels

#endif  // CAIRN_KERNELS_CPU_TOP_K_H_
