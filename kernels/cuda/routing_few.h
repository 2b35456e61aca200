// routing_few.h: routing.h's RouteExperts for few tokens, in one launch; for routing.cu only.
//
// Threads, ownership, units, errors: routing.h.
#ifndef CAIRN_KERNELS_CUDA_ROUTING_FEW_H_
#define CAIRN_KERNELS_CUDA_ROUTING_FEW_H_

#include "kernels/cuda/linear_job.h"
#include "kernels/cuda/routing.h"

namespace cairn::kernels::cuda {

inline constexpr int64_t kRouteFewTokens = 64;

// REQUIRES: a shape and a choice that were checked, 1 to kRouteFewTokens tokens.
absl::Status RouteFew(Stream stream, const float* gate, const RouteChoice& choice,
                      const RouteShape& shape, const RouteOrder& order,
                      const internal::ExpertTiles& tiles);

}  // namespace cairn::kernels::cuda

#endif  // CAIRN_KERNELS_CUDA_ROUTING_FEW_H_
