// A cluster of blocks, for up to eight tokens each: scores by all threads, then a warp a token
// chooses. The chosen pairs come together in the first block's shared memory, where each pair
// counts the pairs that stand before it.
#include "kernels/cuda/routing_few.h"

#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/routing_choice.cuh"

namespace cairn::kernels::cuda {
namespace {

using internal::ExpertTiles;

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kLanes;
constexpr int kBlocksMax = 8;  // as many as any cluster may have
constexpr int kPairsMax = static_cast<int>(kRouteFewTokens) * kRouteChosenMax;
static_assert(kRouteFewTokens <= int64_t{kBlocksMax} * kWarps, "a warp a token");

struct Job {
  const float* gate;
  RouteChoice choice;
  int tokens, experts, k;
  float scale;
  RouteOrder order;
  ExpertTiles tiles;
};

struct Scores {  // of the block's own tokens
  float score[kWarps][kRouteExpertsMax];
  uint32_t key[kWarps][kRouteExpertsMax];
};

// Expert and weight of each pair; what stands where.
struct Pairs {
  int key[kPairsMax];  // expert * kPairsMax + pair: ascending as sorted pairs are
  float weight[kPairsMax];
  int sorted[kPairsMax];  // key, by place
  int begin[kRouteExpertsMax + 1];
  unsigned starts[kPairsMax / kLanes];  // a bit a place: a tile begins there
};

__device__ void StoreInBlock(uint32_t address, uint32_t rank, uint32_t value) {
  asm volatile("st.shared::cluster.u32 [%0], %1;" ::"r"(AddressInBlock(address, rank)), "r"(value)
               : "memory");
}

// All threads of the cluster; what they stored in one another's shared memory is seen.
__device__ void ClusterExchange() {
  asm volatile(
      "barrier.cluster.arrive.release.aligned;\n"
      "barrier.cluster.wait.acquire.aligned;" ::
          : "memory");
}

// Tokens rank, rank + blocks, ...: the block's t-th.
__device__ void MakeScores(const Job& job, int rank, int blocks, Scores& out) {
  for (int e = static_cast<int>(threadIdx.x); e < job.experts; e += kThreads) {
    const float bias = job.choice.bias[e];
    for (int t = 0, token = rank; token < job.tokens; ++t, token += blocks) {
      const float score = SqrtSoftplus(job.gate[int64_t{token} * job.experts + e]);
      out.score[t][e] = score;
      out.key[t][e] = RouteKey(score + bias);
    }
  }
}

// By the warp of the block's t-th token, which is `token`.
__device__ void Choose(const Job& job, int t, int token, const Scores& scores, Pairs& pairs) {
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  int expert = kRouteExpertsMax;  // sorts behind all others
  float score = 0.0f;
  if (job.choice.table != nullptr) {
    if (lane < job.k) {
      expert = job.choice.table[int64_t{job.choice.token_ids[token]} * job.k + lane];
      score = SqrtSoftplus(job.gate[int64_t{token} * job.experts + expert]);
    }
  } else {
    RouteKeys keys;
#pragma unroll
    for (int i = 0; i < kRouteExpertsMax / kLanes; ++i) {
      const int e = lane + kLanes * i;
      keys[i] = e < job.experts ? scores.key[t][e] : 0;
    }
    expert = ChooseLargest(keys, job.k, lane);
    if (lane < job.k) score = scores.score[t][expert];
  }
  const RouteRank ranked = RankAndWeigh(expert, score, job.k, job.scale, lane);
  if (lane >= job.k) return;
  const int pair = token * job.k + ranked.rank;
  StoreInBlock(SharedAddress(&pairs.key[pair]), 0, static_cast<uint32_t>(expert * kPairsMax + pair));
  StoreInBlock(SharedAddress(&pairs.weight[pair]), 0, __float_as_uint(ranked.weight));
}

// How many of `count` pairs stand before `key`.
__device__ int Before(const Pairs& pairs, int count, int key) {
  int before = 0;
#pragma unroll 8
  for (int i = 0; i < count; ++i) before += pairs.key[i] < key ? 1 : 0;
  return before;
}

__device__ void Sort(const Job& job, Pairs& pairs) {
  const int count = job.tokens * job.k;
  const int thread = static_cast<int>(threadIdx.x);
  for (int e = thread; e <= job.experts; e += kThreads) {
    const int begin = Before(pairs, count, e * kPairsMax);
    pairs.begin[e] = begin;
    job.order.offsets[e] = begin;
  }
  for (int pair = thread; pair < count; pair += kThreads) {
    const int place = Before(pairs, count, pairs.key[pair]);
    pairs.sorted[place] = pairs.key[pair];
    job.order.place_of[pair] = place;
    job.order.token_of[place] = pair / job.k;
    job.order.weight_of[place] = pairs.weight[pair];
  }
}

// Behind Sort and a barrier.
__device__ void CutTiles(const Job& job, Pairs& pairs) {
  const int count = job.tokens * job.k;
  for (int place = static_cast<int>(threadIdx.x); place < kPairsMax; place += kThreads) {
    bool starts = false;
    if (place < count) {
      const int begin = pairs.begin[pairs.sorted[place] / kPairsMax];
      starts = (place - begin) % job.tiles.rows_a_tile == 0;
    }
    const unsigned word = __ballot_sync(kAllLanes, starts);
    if (place % kLanes == 0) pairs.starts[place / kLanes] = word;
  }
  __syncthreads();
  for (int place = static_cast<int>(threadIdx.x); place < count; place += kThreads) {
    const int word = place / kLanes;
    const unsigned bit = 1u << (place % kLanes);
    const bool last = place == count - 1;
    if ((pairs.starts[word] & bit) == 0 && !last) continue;
    int tile = __popc(pairs.starts[word] & (bit - 1));
    for (int w = 0; w < word; ++w) tile += __popc(pairs.starts[w]);
    if ((pairs.starts[word] & bit) != 0) {
      const int expert = pairs.sorted[place] / kPairsMax;
      job.tiles.tiles[tile++] = {expert, place,
                                 min(place + job.tiles.rows_a_tile, pairs.begin[expert + 1])};
    }
    if (last) *job.tiles.count = tile;
  }
}

__global__ void __launch_bounds__(kThreads) RouteFewKernel(const __grid_constant__ Job job) {
  __shared__ Scores scores;
  __shared__ Pairs pairs;
  LetNextStart();
  const auto rank = static_cast<int>(ClusterRank());
  const auto blocks = static_cast<int>(ClusterSize());
  ClusterExchange();  // the first block is there
  WaitForKernelsBefore();
  if (job.choice.table == nullptr) MakeScores(job, rank, blocks, scores);
  __syncthreads();
  const int t = static_cast<int>(threadIdx.x) / kLanes;
  const int token = rank + t * blocks;
  if (token < job.tokens) Choose(job, t, token, scores, pairs);
  ClusterExchange();
  if (rank != 0) return;
  Sort(job, pairs);
  __syncthreads();
  CutTiles(job, pairs);
}

}  // namespace

absl::Status RouteFew(Stream stream, const float* gate, const RouteChoice& choice,
                      const RouteShape& shape, const RouteOrder& order, const ExpertTiles& tiles) {
  const Job job{gate,
                choice,
                static_cast<int>(shape.tokens),
                static_cast<int>(shape.experts),
                static_cast<int>(shape.k),
                shape.scale,
                order,
                tiles};
  unsigned blocks = 1;
  while (blocks < kBlocksMax && blocks < shape.tokens) blocks *= 2;
  return LaunchEarly(stream, "RouteExperts", {blocks, kThreads, 0, blocks}, RouteFewKernel, job);
}

}  // namespace cairn::kernels::cuda
