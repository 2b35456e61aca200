// routing_choice.cuh: how a warp chooses a token's experts and weighs them, for many tokens and for
// few (routing.cu, routing_few.cu).
//
// Threads: as said; all of a warp call together. Not for use outside of routing*.
#ifndef CAIRN_KERNELS_CUDA_ROUTING_CHOICE_CUH_
#define CAIRN_KERNELS_CUDA_ROUTING_CHOICE_CUH_

#include "kernels/cuda/row_math.cuh"

namespace cairn::kernels::cuda {

constexpr int kRouteExpertsMax = 512;
constexpr int kRouteChosenMax = 8;
// Of a lane: experts lane, lane + 32, ...
using RouteKeys = uint32_t[kRouteExpertsMax / kLanes];

__device__ inline float SqrtSoftplus(float gate) {
  const double x = static_cast<double>(gate);
  return static_cast<float>(sqrt(fmax(x, 0.0) + log1p(exp(-fabs(x)))));
}

// Order-preserving, never 0 for a number; -0 is +0.
__device__ inline uint32_t RouteKey(float v) {
  const uint32_t bits = __float_as_uint(v + 0.0f);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

// Takes the warp's largest key away and says whose it was; of equal ones the lowest expert's.
__device__ inline int TakeLargest(RouteKeys& keys, int lane) {
  uint32_t most = 0;
#pragma unroll
  for (uint32_t key : keys) most = max(most, key);
  most = __reduce_max_sync(kAllLanes, most);
  unsigned expert = kRouteExpertsMax;
#pragma unroll
  for (int i = kRouteExpertsMax / kLanes - 1; i >= 0; --i) {
    if (keys[i] == most) expert = lane + kLanes * i;
  }
  expert = __reduce_min_sync(kAllLanes, expert);
#pragma unroll
  for (int i = 0; i < kRouteExpertsMax / kLanes; ++i) {
    if (expert == static_cast<unsigned>(lane + kLanes * i)) keys[i] = 0;
  }
  return static_cast<int>(expert);
}

// Lane i < k ends with the i-th to be taken; others with kRouteExpertsMax.
__device__ inline int ChooseLargest(RouteKeys& keys, int k, int lane) {
  int expert = kRouteExpertsMax;
  for (int i = 0; i < k; ++i) {
    const int largest = TakeLargest(keys, lane);
    if (lane == i) expert = largest;
  }
  return expert;
}

// Lanes below k have an expert and its score: where it stands among them, ascending (of equal ones
// those of lower lanes first), and its weight. The sum is over the scores in that order.
struct RouteRank {
  int rank;
  float weight;
};
__device__ inline RouteRank RankAndWeigh(int expert, float score, int k, float scale, int lane) {
  int rank = 0;
  for (int i = 0; i < k; ++i) {
    const int other = __shfl_sync(kAllLanes, expert, i);
    rank += other < expert || (other == expert && i < lane) ? 1 : 0;
  }
  float sum = 0.0f;
  for (int place = 0; place < k; ++place) {
    const unsigned holder = __ballot_sync(kAllLanes, lane < k && rank == place);
    sum += __shfl_sync(kAllLanes, score, __ffs(holder) - 1);
  }
  return {rank, score / sum * scale};
}

}  // namespace cairn::kernels::cuda

#endif  // CAIRN_KERNELS_CUDA_ROUTING_CHOICE_CUH_
