// top_k.h where tokens are many and each fits a block.
//
// A token's scores are held in the registers of a block. From the largest of each thread a bound is
// made that at least k scores reach, and seldom many more: one that so many lanes of each warp
// reach. The scores that reach it are gathered in shared memory, in any order, where a few warps
// find the k-th largest, mark the chosen in a bit for each index, and write those out. Where more
// reach the bound than there is room for (many that are equal, say), all threads find the k-th
// largest of all.
//
// With more tokens than the device has multiprocessors a block takes one after the other: the next
// token's scores are on their way to shared memory while it chooses.
#include "kernels/cuda/top_k_many.h"

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/top_k_choosers.cuh"

namespace cairn::kernels::cuda {
namespace {

constexpr int kValues = kTopKMany;

// Where a thread's scores of a token are: value v at from[v * kTopKThreads]; `left` from the first
// to the token's last.
struct Scores {
  const float* from;
  int left;

  __device__ bool Has(int v) const { return v * kTopKThreads < left; }
  __device__ int Index(int v) const { return static_cast<int>(threadIdx.x) + v * kTopKThreads; }
};

// The thread's scores of a token; past the last NaN, which nothing reaches. Loads have a predicate
// each in place of a branch, so that all are on their way together.
struct Held {
  float values[kValues];

  __device__ void Load(const Scores& scores) {
#pragma unroll
    for (int v = 0; v < kValues; ++v) {
      asm volatile(
          "{\n.reg .pred p;\nsetp.ne.b32 p, %1, 0;\nmov.b32 %0, 0x7fffffff;\n"
          "@p ld.global.nc.f32 %0, [%2];\n}"
          : "=f"(values[v])
          : "r"(static_cast<int>(scores.Has(v))), "l"(scores.from + v * kTopKThreads));
    }
  }
  // From where Fetch() brings them: this thread's words of shared memory.
  __device__ void LoadFetched(const Scores& scores, uint32_t address) {
#pragma unroll
    for (int v = 0; v < kValues; ++v) {
      asm volatile(
          "{\n.reg .pred p;\nsetp.ne.b32 p, %1, 0;\nmov.b32 %0, 0x7fffffff;\n"
          "@p ld.shared.f32 %0, [%2];\n}"
          : "=f"(values[v])
          : "r"(static_cast<int>(scores.Has(v))), "r"(address + 4 * v * kTopKThreads));
    }
  }
  static __device__ void Fetch(const Scores& scores, uint32_t address) {
#pragma unroll
    for (int v = 0; v < kValues; ++v) {
      asm volatile(
          "{\n.reg .pred p;\nsetp.ne.b32 p, %0, 0;\n"
          "@p cp.async.ca.shared.global [%1], [%2], 4;\n}" ::"r"(static_cast<int>(scores.Has(v))),
          "r"(address + 4 * v * kTopKThreads), "l"(scores.from + v * kTopKThreads)
          : "memory");
    }
  }
};

// ---- the bound ----

// The largest key that of a warp's sorted lanes `share` reach, or that half as many of each half
// reach; 0 where there are not as many lanes.
__device__ uint32_t Reached(uint32_t first, uint32_t second, bool halves, int share) {
  const int place = halves ? (share + 1) / 2 : share;
  if (place > 32) return 0;
  const uint32_t key = __shfl_sync(kAllLanes, first, place - 1);
  return halves ? min(key, __shfl_sync(kAllLanes, second, place - 1)) : key;
}

// 0, which is no score's, where there is no score.
__device__ uint32_t KeyOrNone(float score) { return isnan(score) ? 0 : OrderedKey(score); }

// From a key that at least k of the block's n reach to the largest: one that its share of k reach
// in each warp all of whose lanes have a score.
__device__ KeyRange FindRange(const Held& held, int n, int k, ChooserShared& shared) {
  const int whole_warps = min(n / 32, kTopKWarps);
  const auto warps = static_cast<uint32_t>(max(whole_warps, 1));
  const int share = static_cast<int>((static_cast<uint32_t>(k) + warps - 1) / warps);
  // With a large share, the lowest of lanes' largest would be low: then a lane has two.
  const bool halves = share > 16 && n >= 2 * kTopKThreads;
  float even = held.values[0], odd = held.values[1];
#pragma unroll
  for (int v = 2; v < kValues; v += 2) {
    even = fmaxf(even, held.values[v]);
    odd = fmaxf(odd, held.values[v + 1]);
  }
  if (!halves) even = fmaxf(even, odd);
  const uint32_t first = SortDescending(KeyOrNone(even));
  const uint32_t second = halves ? SortDescending(KeyOrNone(odd)) : 0;
  const uint32_t reached = Reached(first, second, halves, share);
  const int lane = threadIdx.x % 32, warp = static_cast<int>(threadIdx.x) / 32;
  if (lane == 0) {
    shared.warp_bounds[warp] = warp < whole_warps ? reached : whole_warps > 0 ? 0xffffffffu : 0;
    shared.warp_largest[warp] = max(first, second);
  }
  __syncthreads();
  const uint32_t low = max(__reduce_min_sync(kAllLanes, shared.warp_bounds[lane]), 1u);
  return {low, __reduce_max_sync(kAllLanes, shared.warp_largest[lane]) - low};
}

// ---- the choice ----

// Adds the scores that reach `bound` to the candidates, if they fit.
__device__ void Collect(const Held& held, const Scores& scores, float bound, int32_t& count,
                        ChooserShared& shared) {
  int mine = 0;
#pragma unroll
  for (int v = 0; v < kValues; ++v) {
    // One after the other, for fewer registers.
    asm volatile("{\n.reg .pred p;\nsetp.ge.f32 p, %1, %2;\n@p add.s32 %0, %0, 1;\n}"
                 : "+r"(mine)
                 : "f"(held.values[v]), "f"(bound));
  }
  const int sum = SumOfLanes(mine);
  const int all = __shfl_sync(kAllLanes, sum, 31);
  if (all == 0) return;
  int begin = 0;
  if (threadIdx.x % 32 == 31) begin = atomicAdd(&count, all);
  begin = __shfl_sync(kAllLanes, begin, 31);
  if (begin + all > kTopKCandidatesMax) return;
  uint32_t to = SharedAddress(shared.candidates + begin + sum - mine);
  int index = static_cast<int>(threadIdx.x);
#pragma unroll
  for (int v = 0; v < kValues; ++v) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ge.f32 p, %2, %3;\n@p st.shared.f32 [%0], %2;\n"
        "@p st.shared.u32 [%0 + %5], %1;\n@p add.u32 %0, %0, 4;\nadd.s32 %1, %1, %4;\n}"
        : "+r"(to), "+r"(index)
        : "f"(held.values[v]), "f"(bound), "n"(kTopKThreads), "n"(4 * kTopKCandidatesMax)
        : "memory");
  }
}

// By the choosers: the k largest of the candidates.
__device__ void ChooseCandidates(int count, KeyRange range, int k, ChooserShared& shared,
                                 int32_t* out) {
  const auto for_each = [&](const auto& take) {
    for (int i = static_cast<int>(threadIdx.x); i < count; i += kTopKChoosers) {
      take(OrderedKey(shared.candidates[i]), shared.indices[i]);
    }
  };
  const Choice choice = FindChoice<false>(range, k, shared, for_each);
  for_each([&](uint32_t key, int index) {
    if (choice.Has(key, index)) atomicOr(&shared.chosen[index / 32], 1u << index % 32);
  });
  SyncChoosers();
  WriteChosen(shared, out);
}

// By all threads: the k largest of all, which are read again. REQUIRES: at least k keys in the
// range.
__device__ void ChooseFromAll(const Scores& scores, KeyRange range, int k, ChooserShared& shared,
                              int32_t* out) {
  const auto key = [&](int v) {
    return scores.Has(v) ? OrderedKey(scores.from[v * kTopKThreads]) : 0;
  };
  const Choice choice = FindChoice<true>(range, k, shared, [&](const auto& take) {
#pragma unroll 4
    for (int v = 0; v < kValues; ++v) take(key(v), scores.Index(v));
  });
#pragma unroll 4
  for (int v = 0; v < kValues; ++v) {
    const uint32_t bits = __ballot_sync(kAllLanes, choice.Has(key(v), scores.Index(v)));
    if (threadIdx.x % 32 == 0) shared.chosen[v * kTopKWarps + threadIdx.x / 32] = bits;
  }
  __syncthreads();
  if (IsChooser()) WriteChosen(shared, out);
}

__device__ void Choose(const Held& held, const Scores& scores, int n, int k, int turn,
                       ChooserShared& shared, int32_t* out) {
  const KeyRange range = FindRange(held, n, k, shared);
  // The next token's; all have read it when it was the last one's.
  if (threadIdx.x == 0) shared.candidate_counts[turn ^ 1] = 0;
  Collect(held, scores, OfOrderedKey(range.low), shared.candidate_counts[turn], shared);
  __syncthreads();
  const int candidates = shared.candidate_counts[turn];
  if (candidates > kTopKCandidatesMax || candidates < k) {
    // Fewer where the bound is no number.
    const KeyRange all = {1, 0xffffffffu - 1};
    ChooseFromAll(scores, candidates < k ? all : range, k, shared, out);
  } else if (IsChooser()) {
    ChooseCandidates(candidates, range, k, shared, out);
  }
}

// ---- the kernel ----

// With kAhead each block takes token after token.
template <bool kAhead>
__global__ void __launch_bounds__(kTopKThreads, 1) TopKManyKernel(const TopKRows rows) {
  extern __shared__ __align__(16) uint8_t dynamic[];
  ChooserShared& shared = *reinterpret_cast<ChooserShared*>(dynamic);
  const uint32_t ahead = SharedAddress(dynamic + sizeof(ChooserShared) + 4 * threadIdx.x);
  LetNextStart();
  if (IsChooser()) {
    ClearOwnBins(shared.histograms[0]);
    ClearOwnBins(shared.histograms[1]);
  }
  shared.chosen[threadIdx.x] = 0;
  if (threadIdx.x == 0) shared.candidate_counts[0] = 0;
  WaitForKernelsBefore();
  const int k = static_cast<int>(rows.k);
  const auto scores_of = [&](int token, int n) {
    return Scores{rows.scores + token * rows.stride + threadIdx.x,
                  n - static_cast<int>(threadIdx.x)};
  };
  int token = static_cast<int>(blockIdx.x);
  int n = rows.counts[token];
  if (kAhead && n > k) Held::Fetch(scores_of(token, n), ahead);
  for (int turn = 0;;) {
    Held held;
    const Scores scores = scores_of(token, n);
    if (kAhead) {
      asm volatile("cp.async.wait_all;" ::: "memory");
      held.LoadFetched(scores, ahead);
    } else if (n > k) {
      held.Load(scores);
    }
    const int next = token + static_cast<int>(gridDim.x);
    int next_n = 0;
    if (kAhead && next < rows.tokens) {
      next_n = rows.counts[next];
      if (next_n > k) Held::Fetch(scores_of(next, next_n), ahead);
    }
    int32_t* const out = rows.indices + token * rows.k;
    if (n <= k) {
      for (int i = static_cast<int>(threadIdx.x); i < k; i += kTopKThreads) out[i] = i < n ? i : -1;
    } else {
      Choose(held, scores, n, k, turn, shared, out);
      turn ^= 1;
    }
    if (!kAhead || next >= rows.tokens) break;
    token = next;
    n = next_n;
  }
}

template <bool kAhead>
absl::Status Launch(const TopKRows& rows, int64_t blocks, Stream stream) {
  constexpr int kBytes =
      static_cast<int>(sizeof(ChooserShared)) + (kAhead ? 4 * kValues * kTopKThreads : 0);
  CAIRN_RETURN_IF_ERROR(
      CudaStatus(cudaFuncSetAttribute(TopKManyKernel<kAhead>,
                                      cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes),
                 "TopK: shared memory"));
  const LaunchShape shape = {dim3(static_cast<unsigned>(blocks)), kTopKThreads, kBytes};
  return LaunchEarly(stream, "TopK", shape, TopKManyKernel<kAhead>, rows);
}

}  // namespace

absl::Status TopKMany(const TopKRows& rows, Stream stream) {
  const int64_t blocks = MultiprocessorCount();
  return rows.tokens > blocks ? Launch<true>(rows, blocks, stream)
                              : Launch<false>(rows, rows.tokens, stream);
}

}  // namespace cairn::kernels::cuda
