// The k largest of n scores (top_k.h), as ordered integers.
//
// A token's scores are held in the registers of one block, or of the blocks of a cluster. The
// largest of each thread come first: the k-th largest of those is a lower bound of the k-th largest
// score, and few scores are above it. Among these the k-th is then found by radix select:
// histograms of 2048 bins over what range is left, each narrowing it to one bin. Blocks of a
// cluster add up their histograms through each other's shared memory, so that all find the same
// bin.
#include <cooperative_groups.h>

#include <algorithm>
#include <limits>

#include "kernels/cuda/chained_launch.cuh"
#include "kernels/cuda/top_k.h"

namespace cairn::kernels::cuda {
namespace {

namespace cg = cooperative_groups;

constexpr uint32_t kWarp = 0xffffffffu;
constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / 32;
constexpr int kBinBits = 11;
constexpr int kBins = 1 << kBinBits;
static_assert(kBins == 2 * kThreads);
// One for the lower bound; then ranges of up to 32, 21 and 10 bits are left.
constexpr int kHistograms = 4;
constexpr int kClusterMax = 8;
// Scores a thread holds: few, or as many as fit its registers.
constexpr int kFew = 8, kMany = 32;
static_assert(int64_t{kClusterMax} * kThreads * kMany == kTopKRowsMax);

struct alignas(16) Shared {
  int32_t histograms[kHistograms][kBins];
  // Of a warp and its value number v, those chosen before it in this block: above the k-th largest
  // score in the low half, equal to it in the high half. At most 2^15 of each.
  uint32_t before[kMany * kWarps];
  uint32_t warp_totals[kWarps];
  uint32_t total;            // of the block, as `before`
  uint32_t lowest, highest;  // of the block's threads' largest keys
  int32_t bin;               // that the k-th largest is in
  int32_t wanted;            // which of its bin's it is, from the largest
};

// What a block of the cluster wrote to its shared memory before, all see in it after.
// (cluster.sync() would wait for global memory, too.)
__device__ void SyncCluster() {
  asm volatile(
      "fence.release.sync_restrict::shared::cta.cluster;\n"
      "barrier.cluster.arrive.relaxed.aligned;\n"
      "barrier.cluster.wait.aligned;\n"
      "fence.acquire.sync_restrict::shared::cluster.cluster;\n" ::
          : "memory");
}

// Order-preserving: a < b as floats exactly if OrderedKey(a) < OrderedKey(b), with -0 equal to +0.
__device__ uint32_t OrderedKey(float v) {
  const uint32_t bits = __float_as_uint(v + 0.0f);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

// The sum of `value` over the threads before this one; by the whole block.
__device__ uint32_t SumBefore(uint32_t value, Shared& shared, uint32_t& all) {
  const int lane = threadIdx.x % 32;
  uint32_t sum = value;
  for (int apart = 1; apart < 32; apart *= 2) {
    const uint32_t lower = __shfl_up_sync(kWarp, sum, apart);
    if (lane >= apart) sum += lower;
  }
  // The last to read the totals has done so before anybody writes them again.
  __syncthreads();
  if (lane == 31) shared.warp_totals[threadIdx.x / 32] = sum;
  __syncthreads();
  uint32_t warps = shared.warp_totals[lane];
  for (int apart = 1; apart < 32; apart *= 2) {
    const uint32_t lower = __shfl_up_sync(kWarp, warps, apart);
    if (lane >= apart) warps += lower;
  }
  all = __shfl_sync(kWarp, warps, 31);
  const uint32_t own = __shfl_sync(kWarp, warps, threadIdx.x / 32);
  return own - shared.warp_totals[threadIdx.x / 32] + sum - value;
}

// Finds the bin of the `wanted`-th largest in the cluster's histograms: shared.bin, and in
// shared.wanted which of the bin's it is.
__device__ void FindBin(const int32_t* histogram, int wanted, cg::cluster_group& cluster,
                        Shared& shared) {
  SyncCluster();
  // Bins from the highest down, two a thread.
  const int high = kBins - 1 - 2 * static_cast<int>(threadIdx.x);
  int counts[2] = {0, 0};
#pragma unroll
  for (unsigned rank = 0; rank < kClusterMax; ++rank) {
    if (rank >= cluster.num_blocks()) continue;
    const int2 pair = *reinterpret_cast<const int2*>(
        cluster.map_shared_rank(histogram, static_cast<int>(rank)) + high - 1);
    counts[0] += pair.y;
    counts[1] += pair.x;
  }
  uint32_t all;
  int before =
      static_cast<int>(SumBefore(static_cast<uint32_t>(counts[0] + counts[1]), shared, all));
  for (int i = 0; i < 2; ++i) {
    if (before < wanted && wanted <= before + counts[i]) {
      shared.bin = high - i;
      shared.wanted = wanted - before;
    }
    before += counts[i];
  }
  __syncthreads();
}

// A token's scores as a thread holds them: value v is score first + v * kThreads. Past the last
// score there are keys of 0, which are below every number's.
template <int kValues>
struct Held {
  uint32_t keys[kValues];
  int left;  // scores from the thread's first to the end

  __device__ bool Has(int v) const { return v * kThreads < left; }
};

// Past the end the last score is read: loads without conditions are all on their way together.
template <int kValues>
__device__ void LoadScores(const float* scores, Held<kValues>& held) {
#pragma unroll
  for (int v = 0; v < kValues; ++v) {
    held.keys[v] = __float_as_uint(scores[min(v * kThreads, held.left - 1)]);
  }
#pragma unroll
  for (int v = 0; v < kValues; ++v) {
    held.keys[v] = held.Has(v) ? OrderedKey(__uint_as_float(held.keys[v])) : 0;
  }
}

// Keys [low, low + width].
struct KeyRange {
  uint32_t low, width;

  // By how much to shift key - low for a bin.
  __device__ int Shift() const { return max(0, 32 - __clz(static_cast<int>(width)) - kBinBits); }
  __device__ void Narrow(int bin) {
    const int shift = Shift();
    const uint32_t below = static_cast<uint32_t>(bin) << shift;
    low += below;
    width = min(width - below, (1u << shift) - 1);
  }
};

// A range whose upper end is the largest key and whose lower end at most the k-th largest.
template <int kValues>
__device__ KeyRange FindRange(const Held<kValues>& held, int n, int k, cg::cluster_group& cluster,
                              Shared& shared) {
  uint32_t largest = 0;
#pragma unroll
  for (int v = 0; v < kValues; ++v) largest = max(largest, held.keys[v]);
  const uint32_t lowest = __reduce_min_sync(kWarp, held.Has(0) ? largest : 0xffffffffu);
  const uint32_t highest = __reduce_max_sync(kWarp, largest);
  const int lane = threadIdx.x % 32;
  if (lane == 0) {
    atomicMin(&shared.lowest, lowest);
    atomicMax(&shared.highest, highest);
  }
  SyncCluster();
  const bool reads = lane < static_cast<int>(cluster.num_blocks());
  const int rank = reads ? lane : 0;
  const uint32_t low = __reduce_min_sync(kWarp, *cluster.map_shared_rank(&shared.lowest, rank));
  const uint32_t high = __reduce_max_sync(kWarp, *cluster.map_shared_rank(&shared.highest, rank));
  // Threads may be fewer than k.
  if (min(n, static_cast<int>(cluster.num_threads())) < k) return {0, high};
  KeyRange range = {low, high - low};
  if (held.Has(0)) atomicAdd(&shared.histograms[0][(largest - low) >> range.Shift()], 1);
  FindBin(shared.histograms[0], k, cluster, shared);
  const uint32_t bound = low + (static_cast<uint32_t>(shared.bin) << range.Shift());
  return {bound, high - bound};
}

// The key of the k-th largest; `ties`: how many of its equals are among the k.
template <int kValues>
__device__ uint32_t FindThreshold(const Held<kValues>& held, KeyRange range, int k,
                                  cg::cluster_group& cluster, Shared& shared, int& ties) {
  int wanted = k;
  for (int pass = 1;; ++pass) {
    int32_t* const histogram = shared.histograms[pass];
    const int shift = range.Shift();
#pragma unroll
    for (int v = 0; v < kValues; ++v) {
      const uint32_t above = held.keys[v] - range.low;
      if (above <= range.width) atomicAdd(&histogram[above >> shift], 1);
    }
    FindBin(histogram, wanted, cluster, shared);
    range.Narrow(shared.bin);
    wanted = shared.wanted;
    if (shift == 0) break;
  }
  ties = wanted;
  return range.low;
}

// Writes the chosen of this block, at their places among those of the cluster.
template <int kValues>
__device__ void WriteChosen(const Held<kValues>& held, int first, uint32_t threshold, int ties,
                            cg::cluster_group& cluster, Shared& shared, int32_t* out) {
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
#pragma unroll
  for (int v = 0; v < kValues; ++v) {
    const uint32_t above = __ballot_sync(kWarp, held.keys[v] > threshold);
    const uint32_t equal = __ballot_sync(kWarp, held.keys[v] == threshold);
    if (lane == 0) shared.before[v * kWarps + warp] = __popc(above) | __popc(equal) << 16;
  }
  __syncthreads();
  const bool counted = threadIdx.x < kValues * kWarps;
  uint32_t all;
  const uint32_t before = SumBefore(counted ? shared.before[threadIdx.x] : 0, shared, all);
  if (counted) shared.before[threadIdx.x] = before;
  if (threadIdx.x == 0) shared.total = all;
  SyncCluster();
  int above_before = 0, equal_before = 0;
  for (unsigned rank = 0; rank < cluster.block_rank(); ++rank) {
    const uint32_t total = *cluster.map_shared_rank(&shared.total, rank);
    above_before += static_cast<int>(total & 0xffffu);
    equal_before += static_cast<int>(total >> 16);
  }
  const uint32_t lower_lanes = (1u << lane) - 1;
#pragma unroll
  for (int v = 0; v < kValues; ++v) {
    const bool is_above = held.keys[v] > threshold;
    const bool is_equal = held.keys[v] == threshold;
    // Few of the warps have any.
    if (__any_sync(kWarp, is_above || is_equal) == 0) continue;
    const uint32_t above = __ballot_sync(kWarp, is_above);
    const uint32_t equal = __ballot_sync(kWarp, is_equal);
    const uint32_t in_block = shared.before[v * kWarps + warp];
    const int above_here =
        above_before + static_cast<int>(in_block & 0xffffu) + __popc(above & lower_lanes);
    const int equal_here =
        equal_before + static_cast<int>(in_block >> 16) + __popc(equal & lower_lanes);
    if (is_above || (is_equal && equal_here < ties)) {
      out[above_here + min(equal_here, ties)] = first + v * kThreads;
    }
  }
}

template <int kValues>
__global__ void __launch_bounds__(kThreads, 1) TopKKernel(const TopKRows rows) {
  __shared__ Shared shared;
  cg::cluster_group cluster = cg::this_cluster();
  LetNextStart();
  WaitForPrevious();
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
  Held<kValues> held;
  const int first = static_cast<int>(cluster.block_rank() * (kThreads * kValues) + threadIdx.x);
  held.left = n - first;
  LoadScores(rows.scores + token * rows.stride + first, held);
  for (int i = threadIdx.x; i < kHistograms * kBins; i += kThreads) {
    (&shared.histograms[0][0])[i] = 0;
  }
  if (threadIdx.x == 0) {
    shared.lowest = 0xffffffffu;
    shared.highest = 0;
  }
  __syncthreads();
  const KeyRange range = FindRange(held, n, k, cluster, shared);
  int ties;
  const uint32_t threshold = FindThreshold(held, range, k, cluster, shared, ties);
  WriteChosen(held, first, threshold, ties, cluster, shared, out);
  // Another block may still read this one's shared memory.
  SyncCluster();
}

template <int kValues>
absl::Status Launch(const TopKRows& rows, int cluster, Stream stream) {
  return LaunchChained("TopK", TopKKernel<kValues>,
                       {.blocks = rows.tokens * cluster, .threads = kThreads, .cluster = cluster},
                       stream, rows);
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
  if (rows.tokens < 0 || rows.tokens > std::numeric_limits<int32_t>::max() / kClusterMax) {
    return absl::InvalidArgumentError(absl::StrCat("TopK: tokens is ", rows.tokens));
  }
  if (rows.tokens == 0) return absl::OkStatus();
  // With few tokens a token takes many blocks with few values each; with many, as few as hold it.
  const bool few_tokens = rows.tokens * kClusterMax <= MultiprocessorCount();
  const bool few_values =
      rows.rows_max <= int64_t{kThreads} * kFew * (few_tokens ? kClusterMax : 1);
  const int64_t block_rows = int64_t{kThreads} * (few_values ? kFew : kMany);
  int cluster = 1;
  while (cluster * block_rows < rows.rows_max) cluster *= 2;
  return few_values ? Launch<kFew>(rows, cluster, stream) : Launch<kMany>(rows, cluster, stream);
}

}  // namespace cairn::kernels::cuda
