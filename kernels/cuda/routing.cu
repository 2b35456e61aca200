#include "kernels/cuda/routing.h"

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/routing_choice.cuh"
#include "kernels/cuda/routing_few.h"
#include "kernels/cuda/row_math.cuh"

namespace cairn::kernels::cuda {
namespace {

constexpr int kTokensOfBlock = 4;
constexpr int kSortThreads = 512;

// A warp a token.
__global__ void __launch_bounds__(kLanes* kTokensOfBlock)
    RouteKernel(const float* gate, RouteChoice choice, int tokens, int experts, int k, float scale,
                int32_t* ids, float* weights) {
  LetNextStartOfFew();
  const int token = blockIdx.x * kTokensOfBlock + threadIdx.y;
  if (token >= tokens) return;  // a whole warp
  const int lane = threadIdx.x;
  const float* const of_token = gate + static_cast<int64_t>(token) * experts;
  int expert = kRouteExpertsMax;  // sorts behind all others
  if (choice.table != nullptr) {
    if (lane < k) {
      expert = choice.table[static_cast<int64_t>(choice.token_ids[token]) * k + lane];
    }
  } else {
    RouteKeys keys;
#pragma unroll
    for (int i = 0; i < kRouteExpertsMax / kLanes; ++i) {
      const int e = lane + kLanes * i;
      keys[i] = e < experts ? RouteKey(SqrtSoftplus(of_token[e]) + choice.bias[e]) : 0;
    }
    expert = ChooseLargest(keys, k, lane);
  }
  const float score = lane < k ? SqrtSoftplus(of_token[expert]) : 0.0f;
  const RouteRank ranked = RankAndWeigh(expert, score, k, scale, lane);
  if (lane >= k) return;
  const int64_t pair = static_cast<int64_t>(token) * k + ranked.rank;
  ids[pair] = expert;
  weights[pair] = ranked.weight;
}

// A block an expert. All blocks read all ids: which is less than an exchange between them costs.
// Each warp has a stretch of the pairs.
__global__ void __launch_bounds__(kSortThreads)
    SortPairsKernel(const int32_t* ids, const float* weights, int pairs, int k, RouteOrder order) {
  constexpr int kWarps = kSortThreads / kLanes;
  __shared__ int mine_of_warp[kWarps];
  __shared__ int before_of_warp[kWarps];  // pairs of lower experts
  LetNextStartOfFew();
  const int expert = blockIdx.x;
  const int warp = threadIdx.x / kLanes;
  const int lane = threadIdx.x % kLanes;
  const int stretch = CeilDiv(pairs, kSortThreads) * kLanes;
  const int begin = min(pairs, warp * stretch);
  const int end = min(pairs, begin + stretch);
  WaitForKernelsBefore();
  int mine = 0;
  int before = 0;
#pragma unroll 4
  for (int i = begin + lane; i < end; i += kLanes) {
    const int id = ids[i];
    mine += id == expert ? 1 : 0;
    before += id < expert ? 1 : 0;
  }
  mine = __reduce_add_sync(kAllLanes, mine);
  before = __reduce_add_sync(kAllLanes, before);
  if (lane == 0) {
    mine_of_warp[warp] = mine;
    before_of_warp[warp] = before;
  }
  __syncthreads();
  int place = 0;  // of the warp's first
  int all = 0;
  for (int w = 0; w < kWarps; ++w) {
    place += before_of_warp[w] + (w < warp ? mine_of_warp[w] : 0);
    all += before_of_warp[w];
  }
  if (threadIdx.x == 0) {
    order.offsets[expert] = all;
    if (expert == 0) order.offsets[gridDim.x] = pairs;
  }
  if (mine == 0) return;
  for (int first = begin; first < end; first += kLanes) {
    const int i = first + lane;
    const bool is_mine = i < end && ids[i] == expert;
    const unsigned takers = __ballot_sync(kAllLanes, is_mine);
    if (is_mine) {
      const int at = place + __popc(takers & ((1u << lane) - 1u));
      order.token_of[at] = i / k;
      if (weights != nullptr) order.weight_of[at] = weights[i];
      order.place_of[i] = at;
    }
    place += __popc(takers);
  }
}

// A thread has eight values of a token.
__global__ void __launch_bounds__(256)
    CombineExpertsKernel(const uint16_t* made, const int32_t* place_of, const uint16_t* shared,
                         int64_t tokens, int k, int chunks, uint16_t* out) {
  LetNextStartOfFew();
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t token = i / chunks;
  if (token >= tokens) return;
  WaitForKernelsBefore();
  const int64_t dim = 8 * static_cast<int64_t>(chunks);
  const int64_t at = 8 * (i - token * chunks);
  uint4 parts[kRouteChosenMax];
#pragma unroll
  for (int j = 0; j < kRouteChosenMax; ++j) {
    if (j >= k) continue;
    const int64_t row = place_of[token * k + j];
    parts[j] = *reinterpret_cast<const uint4*>(made + row * dim + at);
  }
  float sum[8] = {};
#pragma unroll
  for (int j = 0; j < kRouteChosenMax; ++j) {
    if (j >= k) continue;
    float v[8];
    Unpack8(parts[j], v);
#pragma unroll
    for (int e = 0; e < 8; ++e) sum[e] += v[e];
  }
  float v[8];
  Load8(shared + token * dim + at, v);
#pragma unroll
  for (int e = 0; e < 8; ++e) sum[e] += v[e];
  Store8(sum, out + token * dim + at);
}

absl::Status CheckShape(const RouteShape& shape) {
  CAIRN_RETURN_IF_ERROR(Require(shape.experts > 0 && shape.experts <= kRouteExpertsMax,
                                "Routing: experts not in [1, 512]"));
  CAIRN_RETURN_IF_ERROR(Require(shape.k > 0 && shape.k <= kRouteChosenMax && shape.k <= shape.experts,
                                "Routing: k not in [1, 8], or more than there are experts"));
  return Require(shape.tokens >= 0 && shape.tokens < (int64_t{1} << 31) / shape.k - kSortThreads,
                 "Routing: tokens * k not below 2^31");
}

absl::Status CheckChoice(const RouteChoice& choice) {
  return Require(
      choice.bias != nullptr || (choice.table != nullptr && choice.token_ids != nullptr),
      "Routing: neither a bias nor a table with token ids");
}

}  // namespace

absl::Status Route(Stream stream, const float* gate, const RouteChoice& choice,
                   const RouteShape& shape, int32_t* ids, float* weights) {
  CAIRN_RETURN_IF_ERROR(CheckShape(shape));
  CAIRN_RETURN_IF_ERROR(CheckChoice(choice));
  if (shape.tokens == 0) return absl::OkStatus();
  const auto grid = static_cast<unsigned>(CeilDiv(shape.tokens, int64_t{kTokensOfBlock}));
  RouteKernel<<<grid, dim3(kLanes, kTokensOfBlock), 0, stream>>>(
      gate, choice, static_cast<int>(shape.tokens), static_cast<int>(shape.experts),
      static_cast<int>(shape.k), shape.scale, ids, weights);
  return LaunchStatus("Route");
}

absl::Status SortPairs(Stream stream, const int32_t* ids, const float* weights,
                       const RouteShape& shape, const RouteOrder& order) {
  CAIRN_RETURN_IF_ERROR(CheckShape(shape));
  return LaunchEarlyIfFew(stream, "SortPairs", {static_cast<unsigned>(shape.experts), kSortThreads},
                          SortPairsKernel, ids, weights, static_cast<int>(shape.tokens * shape.k),
                          static_cast<int>(shape.k), order);
}

absl::Status RouteExperts(Stream stream, const float* gate, const RouteChoice& choice,
                          const RouteShape& shape, const RouteRoom& room, const RouteOrder& order,
                          const ExpertRows& rows) {
  CAIRN_RETURN_IF_ERROR(CheckShape(shape));
  CAIRN_RETURN_IF_ERROR(CheckChoice(choice));
  CAIRN_RETURN_IF_ERROR(Require(rows.offsets == order.offsets && rows.experts <= shape.experts &&
                                    rows.rows == shape.tokens * shape.k,
                                "RouteExperts: rows are not those of the order"));
  CAIRN_ASSIGN_OR_RETURN(const internal::ExpertTiles tiles, internal::ExpertTilesOf(rows));
  if (shape.tokens > 0 && shape.tokens <= kRouteFewTokens) {
    return RouteFew(stream, gate, choice, shape, order, tiles);
  }
  CAIRN_RETURN_IF_ERROR(Route(stream, gate, choice, shape, room.ids, room.weights));
  CAIRN_RETURN_IF_ERROR(SortPairs(stream, room.ids, room.weights, shape, order));
  return CutExpertRows(stream, rows);
}

absl::Status CombineExperts(Stream stream, const uint16_t* made, const int32_t* place_of,
                            const uint16_t* shared, const RouteShape& shape, int64_t dim,
                            uint16_t* out) {
  CAIRN_RETURN_IF_ERROR(CheckShape(shape));
  CAIRN_RETURN_IF_ERROR(Require(dim > 0 && dim % 8 == 0 && dim <= (1 << 20),
                                "CombineExperts: dim not a multiple of 8 up to 2^20"));
  constexpr int64_t kThreads = 256;
  const int64_t blocks = CeilDiv(shape.tokens * (dim / 8), kThreads);
  CAIRN_RETURN_IF_ERROR(Require(blocks < (int64_t{1} << 31),
                                "CombineExperts: tokens * dim not below 2^42"));
  if (blocks == 0) return absl::OkStatus();
  return LaunchEarlyIfFew(stream, "CombineExperts", {static_cast<unsigned>(blocks), kThreads},
                          CombineExpertsKernel, made, place_of, shared, shape.tokens,
                          static_cast<int>(shape.k), static_cast<int>(dim / 8), out);
}

}  // namespace cairn::kernels::cuda
