// top_k_block.cuh: what a block, or a cluster of blocks, counts together for top_k.cu: sums over
// threads, histograms of keys.
//
// Device code only; blocks of kTopKThreads threads, all of which call each function, but for
// Bins::Find.
#ifndef CAIRN_KERNELS_CUDA_TOP_K_BLOCK_CUH_
#define CAIRN_KERNELS_CUDA_TOP_K_BLOCK_CUH_

#include <cooperative_groups.h>

#include <cstdint>

namespace cairn::kernels::cuda {

namespace cg = cooperative_groups;

constexpr uint32_t kAllLanes = 0xffffffffu;
constexpr int kTopKThreads = 1024;
constexpr int kTopKWarps = kTopKThreads / 32;
constexpr int kTopKBinBits = 11;
constexpr int kTopKBins = 1 << kTopKBinBits;
static_assert(kTopKBins == 2 * kTopKThreads);
constexpr int kTopKClusterMax = 8;
// Scores a thread holds: few, or as many as fit its registers.
constexpr int kTopKFew = 8, kTopKMany = 32;
// Scores that one block chooses among.
constexpr int kTopKCandidates = 4;
constexpr int kTopKCandidatesMax = kTopKCandidates * kTopKThreads;

struct alignas(16) TopKShared {
  int32_t histograms[2][kTopKBins];  // in turn
  // Of a warp and its value number v, those before it in this block, two counts as in Counts.
  uint32_t before[kTopKMany * kTopKWarps];
  uint32_t candidate_keys[kTopKCandidatesMax];
  int32_t candidate_indices[kTopKCandidatesMax];
  uint32_t warp_totals[kTopKWarps];
  uint32_t total;            // of the block, as `before`
  uint32_t lowest, highest;  // keys
  uint32_t bounds[2];        // of the block: reached by its share of k; by k
  int32_t bins[2];           // what FindBin found
  int32_t wanted[2];
};

// What a block of the cluster wrote to its shared memory before, all see in it after. (The
// library's cluster.sync() would wait for global memory, too.)
__device__ inline void SyncCluster() {
  asm volatile(
      "fence.release.sync_restrict::shared::cta.cluster;\n"
      "barrier.cluster.arrive.relaxed.aligned;\n"
      "barrier.cluster.wait.aligned;\n"
      "fence.acquire.sync_restrict::shared::cluster.cluster;\n" ::
          : "memory");
}

// Order-preserving: a < b as floats exactly if OrderedKey(a) < OrderedKey(b), with -0 equal to +0.
// 0 is below the key of every number.
__device__ inline uint32_t OrderedKey(float v) {
  const uint32_t bits = __float_as_uint(v + 0.0f);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

// Two counts in one word, each of at most 2^15 things of a block.
struct Counts {
  static __device__ uint32_t Of(int first, int second) {
    return static_cast<uint32_t>(first) | static_cast<uint32_t>(second) << 16;
  }
  static __device__ int First(uint32_t counts) { return static_cast<int>(counts & 0xffffu); }
  static __device__ int Second(uint32_t counts) { return static_cast<int>(counts >> 16); }
};

// The sum of `value` over the threads before this one, and over all; by the whole block.
__device__ inline uint32_t SumBefore(uint32_t value, TopKShared& shared, uint32_t& all) {
  const int lane = threadIdx.x % 32;
  uint32_t sum = value;
  for (int apart = 1; apart < 32; apart *= 2) {
    const uint32_t lower = __shfl_up_sync(kAllLanes, sum, apart);
    if (lane >= apart) sum += lower;
  }
  // The last to read the totals has done so before anybody writes them again.
  __syncthreads();
  if (lane == 31) shared.warp_totals[threadIdx.x / 32] = sum;
  __syncthreads();
  const uint32_t own = shared.warp_totals[lane];
  uint32_t warps = own;
  for (int apart = 1; apart < 32; apart *= 2) {
    const uint32_t lower = __shfl_up_sync(kAllLanes, warps, apart);
    if (lane >= apart) warps += lower;
  }
  all = __shfl_sync(kAllLanes, warps, 31);
  return __shfl_sync(kAllLanes, warps - own, threadIdx.x / 32) + sum - value;
}

// A histogram, two bins a thread, from the highest bin down.
struct Bins {
  int high;  // the higher of the thread's two
  int counts[2] = {0, 0};
  int before;  // in all bins above

  // This block's alone.
  __device__ static Bins Of(const int32_t* histogram, TopKShared& shared) {
    Bins bins;
    bins.Add(histogram);
    bins.Sum(shared);
    return bins;
  }
  // The cluster's together.
  __device__ static Bins OfCluster(int32_t* histogram, cg::cluster_group& cluster,
                                   TopKShared& shared) {
    Bins bins;
#pragma unroll
    for (unsigned rank = 0; rank < kTopKClusterMax; ++rank) {
      if (rank < cluster.num_blocks()) {
        bins.Add(cluster.map_shared_rank(histogram, static_cast<int>(rank)));
      }
    }
    bins.Sum(shared);
    return bins;
  }

  // To be read after a barrier: the bin of the `wanted`-th largest, and which of its bin's it is.
  __device__ void Find(int wanted, int place, TopKShared& shared) const {
    int above = before;
    for (int i = 0; i < 2; ++i) {
      if (above < wanted && wanted <= above + counts[i]) {
        shared.bins[place] = high - i;
        shared.wanted[place] = wanted - above;
      }
      above += counts[i];
    }
  }

 private:
  __device__ Bins() : high(kTopKBins - 1 - 2 * static_cast<int>(threadIdx.x)) {}
  __device__ void Add(const int32_t* histogram) {
    const int2 pair = *reinterpret_cast<const int2*>(histogram + high - 1);
    counts[0] += pair.y;
    counts[1] += pair.x;
  }
  __device__ void Sum(TopKShared& shared) {
    uint32_t all;
    before = static_cast<int>(SumBefore(static_cast<uint32_t>(counts[0] + counts[1]), shared, all));
  }
};

__device__ inline void ClearHistogram(int32_t* histogram) {
  reinterpret_cast<int2*>(histogram)[threadIdx.x] = make_int2(0, 0);
}

// Keys [low, low + width].
struct KeyRange {
  uint32_t low, width;

  // By how much to shift key - low for a bin.
  __device__ int Shift() const {
    return max(0, 32 - __clz(static_cast<int>(width)) - kTopKBinBits);
  }
  __device__ uint32_t LowOf(int bin) const { return low + (static_cast<uint32_t>(bin) << Shift()); }
  __device__ void Narrow(int bin) {
    const uint32_t most = (1u << Shift()) - 1;
    const uint32_t below = LowOf(bin) - low;
    low += below;
    width = min(width - below, most);
  }
};

// From the lowest of the threads' lowest keys to the highest of their highest.
__device__ inline KeyRange RangeOfBlock(uint32_t lowest, uint32_t highest, TopKShared& shared) {
  if (threadIdx.x == 0) {
    shared.lowest = 0xffffffffu;
    shared.highest = 0;
  }
  __syncthreads();
  lowest = __reduce_min_sync(kAllLanes, lowest);
  highest = __reduce_max_sync(kAllLanes, highest);
  if (threadIdx.x % 32 == 0) {
    atomicMin(&shared.lowest, lowest);
    atomicMax(&shared.highest, highest);
  }
  __syncthreads();
  return {shared.lowest, shared.highest - shared.lowest};
}

}  // namespace cairn::kernels::cuda

#endif  // CAIRN_KERNELS_CUDA_TOP_K_BLOCK_CUH_
