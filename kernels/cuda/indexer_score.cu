// Scores of the indexer (indexer.h).
//
// A block has four warpgroups. Of each step of 256 rows a warpgroup has 64, a warp 16 and a thread
// two: rows g and g + 8 of the warp's, g = lane / 4, of which it unpacks the group of 32 dims
// c = lane % 4 straight into the registers that wgmma reads its first matrix from. So a row goes
// through memory once, packed, and through shared memory only on its way from memory (cp.async,
// each thread its own bytes, so that nothing waits for another thread). The second matrix is a
// token's 64 heads, from shared memory; the products of one row with 16 heads are then in one
// thread.
//
// No warpgroup waits for another, so one unpacks while another multiplies and a third sums up.
#include <algorithm>

#include "kernels/cuda/chained_launch.cuh"
#include "kernels/cuda/indexer.h"
#include "kernels/cuda/indexer_exact.cuh"
#include "kernels/cuda/indexer_mma.cuh"
#include "kernels/cuda/indexer_query.cuh"

namespace cairn::kernels::cuda {
namespace {

constexpr uint32_t kWarp = 0xffffffffu;
constexpr int kThreads = 384;
constexpr int kStepRows = kThreads / 2;
constexpr int kStages = 4;
constexpr int kHeads = static_cast<int>(kIndexHeads);
constexpr int kTokensMax = static_cast<int>(kIndexGroupTokensMax);
constexpr int kMatrixBytes = sizeof(IndexQueryTile::matrix);

// What stands beside a matrix in IndexQueryTile.
struct TileTail {
  float weights[kHeads];
  int32_t wide;
  int32_t unused[3];
};
static_assert(sizeof(TileTail) + kMatrixBytes == sizeof(IndexQueryTile));

struct Shared {
  uint4 data[kStages][2][kThreads];
  uint32_t scales[kStages][2][kThreads];
  TileTail tails[kTokensMax];
  int32_t counts[kTokensMax];
  uint2 magnitudes[kIndexShiftMax + 2];
};

// The matrices come first: wgmma's swizzle wants them at multiples of 1024 bytes.
constexpr int SharedBytes(int tokens) {
  return tokens * kMatrixBytes + static_cast<int>(sizeof(Shared));
}
static_assert(SharedBytes(kTokensMax) <= 232448);

// 16 or 4 bytes; zeros where `wanted` is false, and then nothing is read.
template <int kBytes>
__device__ void CopyAsync(void* to, const uint8_t* from, bool wanted) {
  const int bytes = wanted ? kBytes : 0;
  if constexpr (kBytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(SharedAddress(to)),
                 "l"(from), "r"(bytes)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(SharedAddress(to)), "l"(from),
                 "r"(bytes)
                 : "memory");
  }
}

// A stretch of a group's steps.
struct Stretch {
  IndexGroup group;
  int first, last;

  // The first of this warp's 16 rows of a step.
  __device__ int WarpRow(int step) const {
    return step * kStepRows + static_cast<int>(threadIdx.x) / 32 * 16;
  }
};

// Brings a stretch's rows to shared memory, step by step, each thread those bytes that it unpacks.
class Fetcher {
 public:
  __device__ explicit Fetcher(const Stretch& stretch) {
    const int lane = threadIdx.x % 32;
    const int64_t row = stretch.WarpRow(stretch.first) + lane / 4;
    data_ = stretch.group.data + row * kIndexRowDataBytes + lane % 4 * 16;
    scales_ = stretch.group.scales + row * kIndexRowScaleBytes;
    left_ = min(stretch.group.rows, stretch.last * kStepRows) - static_cast<int>(row);
  }

  // Starts on the next step; past the stretch's end nothing is read.
  __device__ void Start(Shared& shared) {
    for (int half = 0; half < 2; ++half) {
      const bool wanted = left_ > 8 * half;
      CopyAsync<16>(&shared.data[stage_][half][threadIdx.x], data_ + 8 * half * kIndexRowDataBytes,
                    wanted);
      CopyAsync<4>(&shared.scales[stage_][half][threadIdx.x],
                   scales_ + 8 * half * kIndexRowScaleBytes, wanted);
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
    stage_ = (stage_ + 1) % kStages;
    data_ += kStepRows * kIndexRowDataBytes;
    scales_ += kStepRows * kIndexRowScaleBytes;
    left_ -= kStepRows;
  }

 private:
  const uint8_t* data_;  // of this thread's first row in the next step
  const uint8_t* scales_;
  int left_;  // rows from that one to the end
  unsigned stage_ = 0;
};

template <int kPending>
__device__ void WaitForCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// The group's tokens to shared memory. Every thread of the block comes here between two stretches.
__device__ void LoadTokens(const IndexGroup& group, const PreparedIndexQuery* prepared,
                           const int32_t* counts, uint8_t* matrices, Shared& shared) {
  __syncthreads();
  constexpr int kMatrixPieces = kMatrixBytes / 16;
  constexpr int kPieces = sizeof(IndexQueryTile) / 16;
  for (int i = threadIdx.x; i < group.tokens * kPieces; i += kThreads) {
    const int token = i / kPieces;
    const int piece = i % kPieces;
    const auto* from = reinterpret_cast<const uint4*>(&prepared[group.first + token].tile);
    uint4* const to = piece < kMatrixPieces
                          ? reinterpret_cast<uint4*>(matrices + token * kMatrixBytes) + piece
                          : reinterpret_cast<uint4*>(&shared.tails[token]) + piece - kMatrixPieces;
    *to = from[piece];
  }
  if (threadIdx.x < group.tokens) {
    shared.counts[threadIdx.x] = counts[group.first + threadIdx.x];
  }
  // What was stored is read by wgmma next.
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  __syncthreads();
}

struct Keys {
  uint32_t codes[4][4];  // of each wgmma of 32 columns: what it takes of this thread
  float scale;           // of the row whose sum this thread ends up with
};

// How far this thread's group of dims lies below the largest of its row, kIndexShiftMax + 1 where
// it is too far: in the upper bytes of 16-bit halves, of the first row below.
using Shifts = uint32_t;
constexpr Shifts kTooFar = (kIndexShiftMax + 1u) * 0x01000100u;

// From the four scale bytes of each of the two rows.
__device__ Shifts FindShifts(uint32_t first, uint32_t second, float& scale) {
  const uint32_t c = threadIdx.x % 4;
  // The first row's in the lower half, the second's in the upper; what stands in the lower byte of
  // a half cannot outweigh the upper one.
  const uint32_t low = Permute(first, second, 0x5410);
  const uint32_t high = Permute(first, second, 0x7632);
  const uint32_t most = __vmaxu2(__vmaxu2(low, low << 8), __vmaxu2(high, high << 8));
  const uint32_t own = Permute(first, second, c << 4 | (4 + c) << 12);
  const uint32_t byte = most >> (c % 2 == 0 ? 8 : 24) & 0xffu;
  // As IndexScale.
  scale = __uint_as_float(max(byte << 23, 0x00400000u));
  return __vminu2((most & 0xff00ff00u) - (own & 0xff00ff00u), kTooFar);
}

__device__ Shifts UnpackKeys(const Shared& shared, unsigned stage, Keys& keys) {
  const Shifts shifts = FindShifts(shared.scales[stage][0][threadIdx.x],
                                   shared.scales[stage][1][threadIdx.x], keys.scale);
  for (int half = 0; half < 2; ++half) {
    const uint4 data = shared.data[stage][half][threadIdx.x];
    const uint32_t shift = half == 0 ? (shifts & 0xffffu) >> 8 : shifts >> 24;
    const uint2 magnitudes = shared.magnitudes[shift];
    const uint32_t words[4] = {data.x, data.y, data.z, data.w};
    for (int s = 0; s < 4; ++s) {
      Unpack(words[s], magnitudes, keys.codes[s][half], keys.codes[s][2 + half]);
    }
  }
  return shifts;
}

// Twice relu: on the pipe of the multiplications, where the units for comparisons are busy
// unpacking.
__device__ float TwiceRelu(float x) { return x + fabsf(x); }

// The sums over the heads of the two rows; the thread's own is row g for even c, g + 8 for odd.
__device__ float SumHeads(const float (&d)[32], const float* weights) {
  const int c = threadIdx.x % 4;
  float low = 0.0f, high = 0.0f;
  for (int j = 0; j < 4; ++j) {
    const float4 w = reinterpret_cast<const float4*>(weights)[4 * j + c];
    low = fmaf(w.x, TwiceRelu(d[8 * j]), low);
    high = fmaf(w.x, TwiceRelu(d[8 * j + 2]), high);
    low = fmaf(w.y, TwiceRelu(d[8 * j + 1]), low);
    high = fmaf(w.y, TwiceRelu(d[8 * j + 3]), high);
    low = fmaf(w.z, TwiceRelu(d[8 * j + 4]), low);
    high = fmaf(w.z, TwiceRelu(d[8 * j + 6]), high);
    low = fmaf(w.w, TwiceRelu(d[8 * j + 5]), low);
    high = fmaf(w.w, TwiceRelu(d[8 * j + 7]), high);
  }
  float mine = c % 2 == 0 ? low : high;
  mine += __shfl_xor_sync(kWarp, c % 2 == 0 ? high : low, 1);
  return mine + __shfl_xor_sync(kWarp, mine, 2);
}

// One token's products with a step's rows, begun and then awaited, summed up and stored.
class Scorer {
 public:
  __device__ Scorer(const Stretch& stretch, const IndexScoring& scoring, const uint8_t* matrices,
                    const Shared& shared)
      : shared_(shared),
        stride_(scoring.stride),
        tokens_(stretch.group.tokens),
        descriptor_(DescriptorLow(matrices)) {
    const int lane = threadIdx.x % 32;
    row_ = stretch.WarpRow(stretch.first) + lane / 4 + lane % 2 * 8;
    out_ = scoring.scores + stretch.group.first * scoring.stride + row_;
  }

  __device__ bool IsLastToken() const { return token_ + 1 == tokens_; }
  __device__ void NextToken() { ++token_; }
  __device__ void NextStep() {
    token_ = 0;
    row_ += kStepRows;
    out_ += kStepRows;
  }

  __device__ void Begin(const Keys& keys, float (&products)[32]) const {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
    for (int s = 0; s < 4; ++s) {
      Multiply(products, keys.codes[s],
               descriptor_ + static_cast<uint32_t>(token_) * (kMatrixBytes / 16) + 2 * s, s > 0);
    }
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
  }

  // REQUIRES: the products are there.
  struct Place {
    float* out;
    bool wanted;
    const float* weights;
    float scale;
  };
  __device__ Place Here(const Keys& keys) const {
    return {out_ + token_ * stride_, threadIdx.x % 4 < 2 && row_ < shared_.counts[token_],
            shared_.tails[token_].weights, keys.scale};
  }
  __device__ static void Finish(const Place& place, const float (&products)[32]) {
    const float sum = SumHeads(products, place.weights);
    if (place.wanted) *place.out = sum * place.scale;
  }

 private:
  const Shared& shared_;
  int64_t stride_;
  int tokens_;
  uint32_t descriptor_;
  int row_;
  float* out_;
  int token_ = 0;
};

// Scores a stretch by the tensor cores. Whether this warp met a row that may be wide (a group of
// zeros may lie far below the others without harm; ScoreWide looks again).
__device__ bool ScoreStretch(const Stretch& stretch, Fetcher& fetcher, const IndexScoring& scoring,
                             const uint8_t* matrices, Shared& shared) {
  Scorer scorer(stretch, scoring, matrices, shared);
  int steps_left = stretch.last - stretch.first;
  unsigned stage = 0;
  Shifts largest = 0;
  const auto unpack_next = [&](Keys& keys) {
    fetcher.Start(shared);
    WaitForCopies<kStages - 1>();
    largest = __vmaxu2(largest, UnpackKeys(shared, stage, keys));
    stage = (stage + 1) % kStages;
    --steps_left;
  };
  Keys keys, next;
  float even[32], odd[32];
  unpack_next(keys);
  scorer.Begin(keys, even);
  const auto turn = [&](float(&current)[32], float(&following)[32]) {
    const bool new_step = scorer.IsLastToken();
    if (new_step) unpack_next(next);
    WaitForProducts(current);
    const Scorer::Place place = scorer.Here(keys);
    if (new_step) {
      keys = next;
      scorer.NextStep();
    } else {
      scorer.NextToken();
    }
    scorer.Begin(keys, following);
    Scorer::Finish(place, current);
  };
  int left = steps_left * stretch.group.tokens + stretch.group.tokens - 1;
  for (; left >= 2; left -= 2) {
    turn(even, odd);
    turn(odd, even);
  }
  if (left == 1) {
    turn(even, odd);
    WaitForProducts(odd);
    Scorer::Finish(scorer.Here(keys), odd);
  } else {
    WaitForProducts(even);
    Scorer::Finish(scorer.Here(keys), even);
  }
  // The slots are free for the next stretch.
  WaitForCopies<0>();
  return __any_sync(kWarp, __vcmpeq2(largest, kTooFar) != 0);
}

// Scores again what the tensor cores could not: rows that are wide, and all rows of wide tokens.
__device__ void ScoreWide(const Stretch& stretch, const IndexScoring& scoring,
                          const PreparedIndexQuery* prepared, const Shared& shared) {
  const int lane = threadIdx.x % 32;
  // The scores that are replaced were stored by other lanes.
  __syncwarp();
  for (int step = stretch.first; step < stretch.last; ++step) {
    const int begin = stretch.WarpRow(step);
    const int64_t own = begin + lane;
    const bool wide = lane < 16 && own < stretch.group.rows &&
                      IsWide(stretch.group.data + own * kIndexRowDataBytes,
                             stretch.group.scales + own * kIndexRowScaleBytes);
    const uint32_t wide_rows = __ballot_sync(kWarp, wide);
    for (int token = 0; token < stretch.group.tokens; ++token) {
      const int64_t index = stretch.group.first + token;
      uint32_t left = shared.tails[token].wide != 0 ? 0xffffu : wide_rows;
      for (; left != 0; left &= left - 1) {
        const int64_t row = begin + __ffs(static_cast<int>(left)) - 1;
        if (row >= shared.counts[token]) break;
        const float score =
            ExactScore(prepared[index], stretch.group.data + row * kIndexRowDataBytes,
                       stretch.group.scales + row * kIndexRowScaleBytes);
        if (lane == 0) scoring.scores[index * scoring.stride + row] = score;
      }
    }
  }
}

__device__ int StepsOf(const IndexGroup& group) { return (group.rows + kStepRows - 1) / kStepRows; }

// Steps of all groups. By a whole warp, as the next.
__device__ int64_t AllSteps(const IndexScoring& scoring) {
  int64_t steps = 0;
  for (int64_t i = threadIdx.x % 32; i < scoring.group_count; i += 32) {
    steps += StepsOf(scoring.groups[i]);
  }
  for (int apart = 1; apart < 32; apart *= 2) steps += __shfl_xor_sync(kWarp, steps, apart);
  return steps;
}

// The group that has step `wanted` of all groups' steps in a row, from that step to its end.
__device__ Stretch FindStretch(const IndexScoring& scoring, int64_t wanted) {
  const int lane = threadIdx.x % 32;
  int64_t before = 0;
  for (int64_t base = 0;; base += 32) {
    const int64_t i = base + lane;
    const int64_t steps = i < scoring.group_count ? StepsOf(scoring.groups[i]) : 0;
    int64_t end = steps;
    for (int apart = 1; apart < 32; apart *= 2) {
      const int64_t lower = __shfl_up_sync(kWarp, end, apart);
      if (lane >= apart) end += lower;
    }
    const uint32_t later = __ballot_sync(kWarp, before + end > wanted);
    if (later == 0) {
      before += __shfl_sync(kWarp, end, 31);
      continue;
    }
    const int found = __ffs(static_cast<int>(later)) - 1;
    const int64_t first = wanted - before - __shfl_sync(kWarp, end - steps, found);
    const IndexGroup group = scoring.groups[base + found];
    return {group, static_cast<int>(first), StepsOf(group)};
  }
}

// Blocks share the steps of all groups evenly: a block may have the end of one and the start of
// another.
__global__ void __launch_bounds__(kThreads, 1) ScoreKernel(const IndexScoring scoring) {
  extern __shared__ __align__(1024) uint8_t dynamic[];
  uint8_t* const matrices = dynamic;
  Shared& shared = *reinterpret_cast<Shared*>(dynamic + scoring.group_tokens_max * kMatrixBytes);
  const auto* const prepared = static_cast<const PreparedIndexQuery*>(scoring.prepared);
  if (threadIdx.x < kIndexShiftMax + 2) {
    shared.magnitudes[threadIdx.x] = IndexMagnitudes(static_cast<int>(threadIdx.x));
  }
  LetNextStart();
  WaitForPrevious();
  const int64_t all = AllSteps(scoring);
  const int64_t end = all * (blockIdx.x + 1) / gridDim.x;
  int64_t next = all * blockIdx.x / gridDim.x;
  while (next < end) {
    Stretch stretch = FindStretch(scoring, next);
    stretch.last = static_cast<int>(min(int64_t{stretch.last}, stretch.first + end - next));
    next += stretch.last - stretch.first;
    Fetcher fetcher(stretch);
    for (int i = 0; i < kStages - 1; ++i) fetcher.Start(shared);
    LoadTokens(stretch.group, prepared, scoring.counts, matrices, shared);
    bool wide = ScoreStretch(stretch, fetcher, scoring, matrices, shared);
    for (int token = 0; token < stretch.group.tokens; ++token) {
      wide |= shared.tails[token].wide != 0;
    }
    if (wide) ScoreWide(stretch, scoring, prepared, shared);
  }
}

}  // namespace

absl::Status ScoreIndexRows(const IndexScoring& scoring, Stream stream) {
  if (scoring.group_tokens_max < 1 || scoring.group_tokens_max > kIndexGroupTokensMax) {
    return absl::InvalidArgumentError(absl::StrCat("ScoreIndexRows: group_tokens_max is ",
                                                   scoring.group_tokens_max, ", not in [1, ",
                                                   kIndexGroupTokensMax, "]"));
  }
  if (scoring.group_count < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("ScoreIndexRows: group_count is ", scoring.group_count));
  }
  if (scoring.group_count == 0) return absl::OkStatus();
  const int shared = SharedBytes(static_cast<int>(scoring.group_tokens_max));
  CAIRN_RETURN_IF_ERROR(
      CudaStatus(cudaFuncSetAttribute(ScoreKernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                      SharedBytes(kTokensMax)),
                 "ScoreIndexRows: shared memory"));
  return LaunchChained("ScoreIndexRows", ScoreKernel, {MultiprocessorCount(), kThreads, shared},
                       stream, scoring);
}

}  // namespace cairn::kernels::cuda
