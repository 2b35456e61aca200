// top_k_choosers.cuh: what a block that has a token to itself does for top_k_many.cu: the key at
// which a choice is cut, and the chosen in order.
//
// Device code only. "Choosers" are a block's first kTopKChoosers threads: with few keys left, few
// threads are quicker, and the others may go on to the next token.
#ifndef CAIRN_KERNELS_CUDA_TOP_K_CHOOSERS_CUH_
#define CAIRN_KERNELS_CUDA_TOP_K_CHOOSERS_CUH_

#include <cstdint>

#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/top_k_block.cuh"

namespace cairn::kernels::cuda {

constexpr int kTopKChoosers = 256;
constexpr int kTopKChooserWarps = kTopKChoosers / 32;
constexpr int kTopKChooserBins = kTopKBins / kTopKChoosers;
static_assert(kTopKChooserBins == 8);
constexpr int kTopKWords = kTopKMany * kTopKWarps;  // of a bit for each of a block's scores
static_assert(kTopKWords == 4 * kTopKChoosers);

// A bin, which of its keys is wanted (1 is the largest), and how many it has.
struct FoundBin {
  int32_t bin, wanted, count;
};

struct alignas(16) ChooserShared {
  int32_t histograms[2][kTopKBins];      // in turn; clear between uses
  uint32_t chosen[kTopKWords];           // a bit for each index; clear between uses
  float candidates[kTopKCandidatesMax];  // scores, and right behind them
  int32_t indices[kTopKCandidatesMax];
  uint32_t warp_bounds[kTopKWarps], warp_largest[kTopKWarps];
  int32_t candidate_counts[2];  // of a token and of the next
  int32_t totals[kTopKChooserWarps];
  FoundBin found;
};

__device__ inline bool IsChooser() { return threadIdx.x < kTopKChoosers; }
__device__ inline void SyncChoosers() { NamedBarrier(1, kTopKChoosers); }

// The score whose OrderedKey is `key`.
__device__ inline float OfOrderedKey(uint32_t key) {
  return __uint_as_float((key & 0x80000000u) != 0 ? key & 0x7fffffffu : ~key);
}

// ---- sums and orders ----

// The sum over this lane and those before it.
__device__ inline int SumOfLanes(int value) {
  const int lane = threadIdx.x % 32;
  for (int apart = 1; apart < 32; apart *= 2) {
    const int lower = __shfl_up_sync(kAllLanes, value, apart);
    if (lane >= apart) value += lower;
  }
  return value;
}

// The warp's keys, the largest in lane 0.
__device__ inline uint32_t SortDescending(uint32_t key) {
  const uint32_t lane = threadIdx.x % 32;
#pragma unroll
  for (uint32_t size = 2; size <= 32; size *= 2) {
#pragma unroll
    for (uint32_t apart = size / 2; apart > 0; apart /= 2) {
      const uint32_t other = __shfl_xor_sync(kAllLanes, key, apart);
      const bool larger = ((lane & apart) == 0) == ((lane & size) == 0);
      key = larger ? max(key, other) : min(key, other);
    }
  }
  return key;
}

// By the choosers: the sum of `value` over those before. A barrier of theirs comes before the
// next call.
__device__ inline int SumOfChoosersBefore(int value, ChooserShared& shared) {
  const int sum = SumOfLanes(value);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  if (threadIdx.x % 32 == 31) shared.totals[warp] = sum;
  SyncChoosers();
  int before = sum - value;
#pragma unroll
  for (int w = 0; w < kTopKChooserWarps; ++w) {
    if (w < warp) before += shared.totals[w];
  }
  return before;
}

// ---- the key at which a choice is cut ----

// A chooser's bins; chooser 0 has the highest.
__device__ inline int FirstBin() {
  return kTopKBins - kTopKChooserBins * (static_cast<int>(threadIdx.x) + 1);
}

__device__ inline void ClearOwnBins(int32_t* histogram) {
  auto* const bins = reinterpret_cast<int4*>(histogram + FirstBin());
  bins[0] = bins[1] = make_int4(0, 0, 0, 0);
}

// By the choosers: the bin of the `wanted`-th largest, in shared.found after a barrier.
__device__ inline void FindBin(const int32_t* histogram, int wanted, ChooserShared& shared) {
  const auto* const bins = reinterpret_cast<const int4*>(histogram + FirstBin());
  const int4 low = bins[0], high = bins[1];
  const int counts[kTopKChooserBins] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
  int sum = 0;
  for (const int count : counts) sum += count;
  int above = SumOfChoosersBefore(sum, shared);
  if (above >= wanted || wanted > above + sum) return;
#pragma unroll
  for (int i = kTopKChooserBins - 1; i >= 0; --i) {
    if (above < wanted && wanted <= above + counts[i]) {
      shared.found = {FirstBin() + i, wanted - above, counts[i]};
    }
    above += counts[i];
  }
}

// The `wanted`-th largest key, and which it is of so many that equal it.
struct Cut {
  uint32_t key;
  int wanted, equal;
};

// Among the keys within `range`, at least `wanted`, that for_each_key(take) calls take with: by all
// threads of the block, or by its choosers. By radix: histograms over the range that is left, each
// narrowing it to one bin.
template <bool kByAll, typename ForEachKey>
__device__ Cut FindCut(KeyRange range, int wanted, ChooserShared& shared,
                       const ForEachKey& for_each_key) {
  const auto sync = [] { kByAll ? __syncthreads() : SyncChoosers(); };
  for (int turn = 0;; turn ^= 1) {
    int32_t* const histogram = shared.histograms[turn];
    const int shift = range.Shift();
    for_each_key([&](uint32_t key) {
      const uint32_t above = key - range.low;
      if (above <= range.width) atomicAdd(&histogram[above >> shift], 1);
    });
    sync();
    if (IsChooser()) {
      FindBin(histogram, wanted, shared);
      ClearOwnBins(shared.histograms[turn ^ 1]);
    }
    sync();
    const FoundBin found = shared.found;
    range.Narrow(found.bin);
    wanted = found.wanted;
    if (shift > 0) continue;
    if (IsChooser()) ClearOwnBins(histogram);
    sync();
    return {range.low, wanted, found.count};
  }
}

// Which keys are chosen: of those at the cut the lower indices.
struct Choice {
  uint32_t key;
  uint32_t least;  // of what an index lacks to the largest integer

  __device__ static uint32_t Lacks(int index) { return ~static_cast<uint32_t>(index); }
  __device__ static KeyRange LackRange() {
    constexpr auto kMost = static_cast<uint32_t>(kTopKThreads * kTopKMany - 1);
    return {~kMost, kMost};
  }
  __device__ bool Has(uint32_t k, int index) const {
    return k > key || (k == key && Lacks(index) >= least);
  }
};

// The k largest; for_each(take) calls take(key, index).
template <bool kByAll, typename ForEach>
__device__ Choice FindChoice(KeyRange range, int k, ChooserShared& shared,
                             const ForEach& for_each) {
  const Cut cut = FindCut<kByAll>(
      range, k, shared, [&](const auto& take) { for_each([&](uint32_t key, int) { take(key); }); });
  if (cut.wanted == cut.equal) return {cut.key, 0};
  const Cut last = FindCut<kByAll>(Choice::LackRange(), cut.wanted, shared, [&](const auto& take) {
    for_each([&](uint32_t key, int index) {
      if (key == cut.key) take(Choice::Lacks(index));
    });
  });
  return {cut.key, last.key};
}

// By the choosers: the indices of shared.chosen in order; leaves it clear. A barrier of theirs came
// after the last bit.
__device__ inline void WriteChosen(ChooserShared& shared, int32_t* out) {
  auto* const own = reinterpret_cast<uint4*>(shared.chosen) + threadIdx.x;
  const uint4 four = *own;
  *own = make_uint4(0, 0, 0, 0);
  const uint32_t words[4] = {four.x, four.y, four.z, four.w};
  int count = 0;
  for (const uint32_t word : words) count += __popc(word);
  int place = SumOfChoosersBefore(count, shared);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    for (uint32_t left = words[i]; left != 0; left &= left - 1) {
      out[place++] =
          (4 * static_cast<int>(threadIdx.x) + i) * 32 + __ffs(static_cast<int>(left)) - 1;
    }
  }
}

}  // namespace cairn::kernels::cuda

#endif  // CAIRN_KERNELS_CUDA_TOP_K_CHOOSERS_CUH_
