// The k largest of n scores (top_k.h), as ordered integers.
//
// A token's scores are held in the registers of one block, or of the blocks of a cluster. Each
// block has a bound that so many of its threads reach with their largest score; of these bounds one
// is made that at least k scores reach, and seldom many more. The scores that reach it are brought
// to one block, in order, which finds the k-th largest among them by radix select: histograms over
// the range that is left, each narrowing it to one bin. Where more scores reach the bound than a
// block takes (many that are equal, say), the blocks of the cluster do the same with what they
// hold, adding up their histograms through each other's shared memory.
//
// Many tokens that each fit a block go another way (top_k_many.cu).
#include <limits>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/top_k.h"
#include "kernels/cuda/top_k_block.cuh"
#include "kernels/cuda/top_k_many.h"

namespace cairn::kernels::cuda {
namespace {

static_assert(int64_t{kTopKClusterMax} * kTopKThreads * kTopKMany == kTopKRowsMax);
static_assert(int64_t{kTopKThreads} * kTopKMany == kTopKManyRowsMax);

// A token's scores as a thread holds them: value v is score first + v * kTopKThreads. Past the last
// score there are keys of 0.
template <int kValues>
struct Held {
  uint32_t keys[kValues];
  int left;  // scores from the thread's first to the end

  __device__ bool Has(int v) const { return v * kTopKThreads < left; }
  // Past the end the last score is read: loads without conditions are all on their way together.
  __device__ void Load(const float* scores) {
#pragma unroll
    for (int v = 0; v < kValues; ++v) {
      keys[v] = __float_as_uint(scores[min(v * kTopKThreads, left - 1)]);
    }
#pragma unroll
    for (int v = 0; v < kValues; ++v) keys[v] = Has(v) ? OrderedKey(__uint_as_float(keys[v])) : 0;
  }
};

// A key that at least k of the cluster's reach: one that in each whole block its share of k reach,
// or one that k reach in one block, whichever is higher.
template <int kValues>
__device__ uint32_t FindBound(const Held<kValues>& held, int n, int k, cg::cluster_group& cluster,
                              TopKShared& shared) {
  const auto block_rows = kTopKThreads * kValues;
  const int whole = max(n / block_rows, 1);
  const int share = (k + whole - 1) / whole;
  const int begin = static_cast<int>(cluster.block_rank()) * block_rows;
  const int threads = min(max(n - begin, 0), kTopKThreads);  // that have a score
  uint32_t largest = 0;
#pragma unroll
  for (int v = 0; v < kValues; ++v) largest = max(largest, held.keys[v]);
  const KeyRange range = RangeOfBlock(held.Has(0) ? largest : 0xffffffffu, largest, shared);
  if (held.Has(0)) {
    atomicAdd(&shared.histograms[0][(largest - range.low) >> range.Shift()], 1);
  }
  __syncthreads();
  const Bins bins = Bins::Of(shared.histograms[0], shared);
  bins.Find(share, 0, shared);
  bins.Find(k, 1, shared);
  __syncthreads();
  if (threadIdx.x == 0) {
    // The last block, where it is not whole, need not reach its share.
    const bool counts = begin + block_rows <= n || n <= block_rows;
    shared.bounds[0] = !counts ? 0xffffffffu : threads < share ? 0 : range.LowOf(shared.bins[0]);
    shared.bounds[1] = threads < k ? 0 : range.LowOf(shared.bins[1]);
  }
  SyncCluster();
  const int lane = threadIdx.x % 32;
  const int rank = lane < static_cast<int>(cluster.num_blocks()) ? lane : 0;
  const uint32_t* const bounds = cluster.map_shared_rank(&shared.bounds[0], rank);
  const uint32_t all_reach = __reduce_min_sync(kAllLanes, bounds[0]);
  return max(all_reach, __reduce_max_sync(kAllLanes, bounds[1]));
}

// How many keys of the warp are above and equal to `key`, by value number; in shared.before, then
// summed over those before it in the block.
template <int kValues>
__device__ void CountBefore(const uint32_t (&keys)[kValues], uint32_t key, TopKShared& shared) {
#pragma unroll
  for (int v = 0; v < kValues; ++v) {
    const uint32_t above = __ballot_sync(kAllLanes, keys[v] > key);
    const uint32_t equal = __ballot_sync(kAllLanes, keys[v] == key);
    if (threadIdx.x % 32 == 0) {
      shared.before[v * kTopKWarps + threadIdx.x / 32] = Counts::Of(__popc(above), __popc(equal));
    }
  }
  __syncthreads();
  const bool counted = threadIdx.x < kValues * kTopKWarps;
  uint32_t all;
  const uint32_t before = SumBefore(counted ? shared.before[threadIdx.x] : 0, shared, all);
  if (counted) shared.before[threadIdx.x] = before;
  if (threadIdx.x == 0) shared.total = all;
}

// Calls take(v, above, equal) for each key at or above `key`: how many of the cluster's before it
// are above, and how many equal. REQUIRES: CountBefore, and a barrier.
template <int kValues, typename Take>
__device__ void ForEachReaching(const uint32_t (&keys)[kValues], uint32_t key, int above_before,
                                int equal_before, const TopKShared& shared, const Take& take) {
  const uint32_t lower_lanes = (1u << threadIdx.x % 32) - 1;
#pragma unroll
  for (int v = 0; v < kValues; ++v) {
    // Few of the warps have any.
    if (__any_sync(kAllLanes, keys[v] >= key) == 0) continue;
    const uint32_t above = __ballot_sync(kAllLanes, keys[v] > key);
    const uint32_t equal = __ballot_sync(kAllLanes, keys[v] == key);
    const uint32_t in_block = shared.before[v * kTopKWarps + threadIdx.x / 32];
    if (keys[v] >= key) {
      take(v, above_before + Counts::First(in_block) + __popc(above & lower_lanes),
           equal_before + Counts::Second(in_block) + __popc(equal & lower_lanes));
    }
  }
}

// The key of the k-th largest of the block's keys, or of the cluster's, all within `range` or below
// it; `ties`: how many of its equals are among the k. REQUIRES: both histograms are clear.
template <int kValues, bool kOfCluster>
__device__ uint32_t FindThreshold(const uint32_t (&keys)[kValues], KeyRange range, int k,
                                  cg::cluster_group& cluster, TopKShared& shared, int& ties) {
  ties = k;
  for (int turn = 0;; turn ^= 1) {
    int32_t* const histogram = shared.histograms[turn];
    const int shift = range.Shift();
#pragma unroll
    for (int v = 0; v < kValues; ++v) {
      const uint32_t above = keys[v] - range.low;
      if (above <= range.width) atomicAdd(&histogram[above >> shift], 1);
    }
    if constexpr (kOfCluster) {
      SyncCluster();
      Bins::OfCluster(histogram, cluster, shared).Find(ties, 0, shared);
    } else {
      __syncthreads();
      Bins::Of(histogram, shared).Find(ties, 0, shared);
    }
    // All blocks have read it: this turn's barrier came after.
    ClearHistogram(shared.histograms[turn ^ 1]);
    __syncthreads();
    range.Narrow(shared.bins[0]);
    ties = shared.wanted[0];
    if (shift == 0) return range.low;
  }
}

// The k largest among `count` candidates in this block's shared memory, which are in order.
__device__ void ChooseCandidates(int count, int k, cg::cluster_group& cluster, TopKShared& shared,
                                 int32_t* out) {
  uint32_t keys[kTopKCandidates];
  uint32_t largest = 0, smallest = 0xffffffffu;
#pragma unroll
  for (int v = 0; v < kTopKCandidates; ++v) {
    const int i = v * kTopKThreads + static_cast<int>(threadIdx.x);
    keys[v] = i < count ? shared.candidate_keys[i] : 0;
    largest = max(largest, keys[v]);
    smallest = i < count ? min(smallest, keys[v]) : smallest;
  }
  const KeyRange range = RangeOfBlock(smallest, largest, shared);
  int ties;
  const uint32_t threshold =
      FindThreshold<kTopKCandidates, false>(keys, range, k, cluster, shared, ties);
  CountBefore(keys, threshold, shared);
  __syncthreads();
  ForEachReaching(keys, threshold, 0, 0, shared, [&](int v, int above_before, int equal_before) {
    if (keys[v] > threshold || equal_before < ties) {
      out[above_before + min(equal_before, ties)] =
          shared.candidate_indices[v * kTopKThreads + threadIdx.x];
    }
  });
}

// What the blocks of lower rank have counted (CountBefore), and all blocks.
struct ClusterCounts {
  int above = 0, equal = 0, all = 0;

  __device__ ClusterCounts(cg::cluster_group& cluster, TopKShared& shared) {
#pragma unroll
    for (unsigned rank = 0; rank < kTopKClusterMax; ++rank) {
      if (rank >= cluster.num_blocks()) continue;
      const uint32_t total = *cluster.map_shared_rank(&shared.total, static_cast<int>(rank));
      all += Counts::First(total) + Counts::Second(total);
      if (rank < cluster.block_rank()) {
        above += Counts::First(total);
        equal += Counts::Second(total);
      }
    }
  }
};

template <int kValues>
__device__ void Choose(const Held<kValues>& held, int first, int n, int k,
                       cg::cluster_group& cluster, TopKShared& shared, int32_t* out) {
  ClearHistogram(shared.histograms[0]);
  ClearHistogram(shared.histograms[1]);
  const uint32_t bound = FindBound(held, n, k, cluster, shared);
  ClearHistogram(shared.histograms[0]);
  CountBefore(held.keys, bound, shared);
  SyncCluster();
  const ClusterCounts reached(cluster, shared);
  if (reached.all <= kTopKCandidatesMax) {
    uint32_t* const candidate_keys = cluster.map_shared_rank(shared.candidate_keys, 0);
    int32_t* const candidate_indices = cluster.map_shared_rank(shared.candidate_indices, 0);
    ForEachReaching(held.keys, bound, reached.above, reached.equal, shared,
                    [&](int v, int above, int equal) {
                      candidate_keys[above + equal] = held.keys[v];
                      candidate_indices[above + equal] = first + v * kTopKThreads;
                    });
    // Not SyncCluster(): what was written is another block's.
    cluster.sync();
    if (cluster.block_rank() == 0) ChooseCandidates(reached.all, k, cluster, shared, out);
    return;
  }
  int ties;
  const uint32_t threshold = FindThreshold<kValues, true>(held.keys, {bound, 0xffffffffu - bound},
                                                          k, cluster, shared, ties);
  // All have read the totals before.
  CountBefore(held.keys, threshold, shared);
  SyncCluster();
  const ClusterCounts chosen(cluster, shared);
  ForEachReaching(held.keys, threshold, chosen.above, chosen.equal, shared,
                  [&](int v, int above, int equal) {
                    if (held.keys[v] > threshold || equal < ties) {
                      out[above + min(equal, ties)] = first + v * kTopKThreads;
                    }
                  });
  // Another block may still read this one's shared memory.
  SyncCluster();
}

template <int kValues>
__global__ void __launch_bounds__(kTopKThreads, 1) TopKKernel(const TopKRows rows) {
  extern __shared__ __align__(16) uint8_t dynamic[];
  TopKShared& shared = *reinterpret_cast<TopKShared*>(dynamic);
  cg::cluster_group cluster = cg::this_cluster();
  LetNextStart();
  WaitForKernelsBefore();
  const int64_t token = blockIdx.x / cluster.num_blocks();
  const int n = rows.counts[token];
  const int k = static_cast<int>(rows.k);
  int32_t* const out = rows.indices + token * rows.k;
  if (n <= k) {
    const int step = static_cast<int>(cluster.num_threads());
    for (int i = static_cast<int>(cluster.thread_rank()); i < k; i += step) {
      out[i] = i < n ? i : -1;
    }
    return;
  }
  const int first = static_cast<int>(cluster.block_rank() * (kTopKThreads * kValues) + threadIdx.x);
  Held<kValues> held;
  held.left = n - first;
  held.Load(rows.scores + token * rows.stride + first);
  Choose(held, first, n, k, cluster, shared, out);
}

template <int kValues>
absl::Status Launch(const TopKRows& rows, int cluster, Stream stream) {
  constexpr int kSharedBytes = sizeof(TopKShared);
  CAIRN_RETURN_IF_ERROR(
      CudaStatus(cudaFuncSetAttribute(TopKKernel<kValues>,
                                      cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes),
                 "TopK: shared memory"));
  const LaunchShape shape = {dim3(static_cast<unsigned>(rows.tokens * cluster)), kTopKThreads,
                             kSharedBytes, static_cast<unsigned>(cluster)};
  return LaunchEarly(stream, "TopK", shape, TopKKernel<kValues>, rows);
}

}  // namespace

absl::Status TopK(const TopKRows& rows, Stream stream) {
  if (rows.k < 1 || rows.k > kTopKRowsMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("TopK: k is ", rows.k, ", not in [1, ", kTopKRowsMax, "]"));
  }
  if (rows.rows_max < 0 || rows.rows_max > kTopKRowsMax || rows.rows_max > rows.stride) {
    return absl::InvalidArgumentError(absl::StrCat("TopK: rows_max is ", rows.rows_max,
                                                   ", not in [0, ", kTopKRowsMax,
                                                   "] or over the stride, ", rows.stride));
  }
  if (rows.tokens < 0 || rows.tokens > std::numeric_limits<int32_t>::max() / kTopKClusterMax) {
    return absl::InvalidArgumentError(absl::StrCat("TopK: tokens is ", rows.tokens));
  }
  if (rows.tokens == 0) return absl::OkStatus();
  // With few tokens a token takes many blocks with few values each; with many, as few as hold it.
  const bool few_tokens = rows.tokens * kTopKClusterMax <= MultiprocessorCount();
  const bool few_values =
      rows.rows_max <= int64_t{kTopKThreads} * kTopKFew * (few_tokens ? kTopKClusterMax : 1);
  if (!few_values && !few_tokens && rows.rows_max <= kTopKManyRowsMax) {
    return TopKMany(rows, stream);
  }
  const int64_t block_rows = int64_t{kTopKThreads} * (few_values ? kTopKFew : kTopKMany);
  int cluster = 1;
  while (cluster * block_rows < rows.rows_max) cluster *= 2;
  return few_values ? Launch<kTopKFew>(rows, cluster, stream)
                    : Launch<kTopKMany>(rows, cluster, stream);
}

}  // namespace cairn::kernels::cuda
