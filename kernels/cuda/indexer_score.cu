// Scores of the indexer (indexer.h).
//
// A thread unpacks its parts of two rows straight into the registers that wgmma reads its first
// matrix from (indexer_rows.cuh): so a row goes through memory once, packed. The second matrix is a
// token's 64 heads, from shared memory; the products of one row with 16 heads are then in one
// thread. No warpgroup waits for another: one unpacks while another multiplies and a third sums up.
//
// In instructions a warp for 16 rows, unpacking is about 110, once for all tokens, and each token
// about 95, 64 of them its sums (two for a head and row). README.md has what that comes to.
#include "kernels/cuda/indexer.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/indexer_exact.cuh"
#include "kernels/cuda/indexer_mma.cuh"
#include "kernels/cuda/indexer_query.cuh"
#include "kernels/cuda/indexer_rows.cuh"

namespace cairn::kernels::cuda {
namespace {

constexpr uint32_t kWarp = 0xffffffffu;
constexpr int kThreads = kIndexThreads;
constexpr int kStages = kIndexStages;
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
  IndexRowSlots slots;
  TileTail tails[kTokensMax];
  int32_t counts[kTokensMax];
};

// The matrices come first: wgmma's swizzle wants them at multiples of 1024 bytes.
constexpr int SharedBytes(int tokens) {
  return tokens * kMatrixBytes + static_cast<int>(sizeof(Shared));
}
static_assert(SharedBytes(kTokensMax) <= 232448);

// Starts to copy the group's tokens to shared memory. Every thread of the block comes here between
// two stretches.
__device__ void FetchTokens(const IndexGroup& group, const IndexScoring& scoring, uint8_t* matrices,
                            Shared& shared) {
  __syncthreads();
  constexpr int kMatrixPieces = kMatrixBytes / 16;
  constexpr int kPieces = sizeof(IndexQueryTile) / 16;
  const auto* const prepared = static_cast<const PreparedIndexQuery*>(scoring.prepared);
#pragma unroll 1
  for (int i = threadIdx.x; i < group.tokens * kPieces; i += kThreads) {
    const int token = i / kPieces;
    const int piece = i % kPieces;
    const auto* from = reinterpret_cast<const uint8_t*>(&prepared[group.first + token].tile);
    const void* const to =
        piece < kMatrixPieces
            ? matrices + token * kMatrixBytes + piece * 16
            : reinterpret_cast<const uint8_t*>(&shared.tails[token]) + (piece - kMatrixPieces) * 16;
    CopyAsync<16>(SharedAddress(to), from + piece * 16, true);
  }
  CommitCopies();
  if (threadIdx.x < group.tokens) {
    shared.counts[threadIdx.x] = scoring.counts[group.first + threadIdx.x];
  }
}

// Waits for the tokens, whose copies were begun before those of kStages - 1 steps.
__device__ void WaitForTokens() {
  WaitForCopies<kStages - 1>();
  // What was written is read by wgmma next.
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  __syncthreads();
}

// ---- one token's sums ----

// This thread's 16 heads of a token.
struct HeadWeights {
  float4 w[4];

  __device__ explicit HeadWeights(const TileTail& tail) {
    for (int j = 0; j < 4; ++j) {
      w[j] = reinterpret_cast<const float4*>(tail.weights)[4 * j + threadIdx.x % 4];
    }
  }
};

// Twice relu: on the pipe of the multiplications, where the units for comparisons are busy
// unpacking.
__device__ float TwiceRelu(float x) { return x + fabsf(x); }

// The sums over a token's heads of the two rows, whose products begin at d[kFirst]; the thread's
// own is of row g for even c, of g + 8 for odd.
template <int kFirst, int kCount>
__device__ float SumHeads(const float (&d)[kCount], const HeadWeights& weights) {
  const int c = threadIdx.x % 4;
  float low = 0.0f, high = 0.0f;
  for (int j = 0; j < 4; ++j) {
    const int i = kFirst + 8 * j;
    const float4 w = weights.w[j];
    low = fmaf(w.x, TwiceRelu(d[i]), low);
    high = fmaf(w.x, TwiceRelu(d[i + 2]), high);
    low = fmaf(w.y, TwiceRelu(d[i + 1]), low);
    high = fmaf(w.y, TwiceRelu(d[i + 3]), high);
    low = fmaf(w.z, TwiceRelu(d[i + 4]), low);
    high = fmaf(w.z, TwiceRelu(d[i + 6]), high);
    low = fmaf(w.w, TwiceRelu(d[i + 5]), low);
    high = fmaf(w.w, TwiceRelu(d[i + 7]), high);
  }
  float mine = c % 2 == 0 ? low : high;
  mine += __shfl_xor_sync(kWarp, c % 2 == 0 ? high : low, 1);
  return mine + __shfl_xor_sync(kWarp, mine, 2);
}

// The products of a step's rows with the heads of one token or of two.
template <int kCount>
__device__ void MultiplyKeys(const Keys& keys, uint32_t descriptor, float (&products)[kCount]) {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
  for (int s = 0; s < 4; ++s) Multiply(products, keys.codes[s], descriptor + 2 * s, s > 0);
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
  WaitForProducts(products);
}

// Where this thread stores its sums: one row of a step, or none.
class Output {
 public:
  __device__ Output(const Stretch& stretch, const IndexScoring& scoring) {
    const int lane = threadIdx.x % 32;
    row_ = stretch.WarpRow(stretch.first) + lane / 4 + lane % 2 * 8;
    scores_ = scoring.scores + stretch.group.first * scoring.stride + row_;
    // Two of the four threads of a row have nothing to store.
    if (lane % 4 >= 2) row_ = 1 << 30;
  }
  // At `offset` from the group's first token, which sees `count` rows.
  __device__ void Store(int64_t offset, int count, float sum) const {
    if (row_ < count) scores_[offset] = sum;
  }
  __device__ void NextStep() {
    row_ += kIndexStepRows;
    scores_ += kIndexStepRows;
  }

 private:
  float* scores_;
  int row_;
};

// ---- a stretch ----

// Calls score(keys) for each step's keys. The largest shifts met.
template <typename Score>
__device__ Shifts ForEachStep(const Stretch& stretch, RowReader& rows, const Score& score) {
  Shifts largest = 0;
  for (int left = stretch.last - stretch.first; left > 0; left -= kStages) {
#pragma unroll
    for (int stage = 0; stage < kStages; ++stage) {
      if (stage >= left) break;
      rows.Fetch((stage + kStages - 1) % kStages);
      WaitForCopies<kStages - 1>();
      Keys keys;
      largest = __vmaxu2(largest, UnpackKeys(rows, stage, keys));
      score(keys);
    }
  }
  // The slots are free for the next stretch.
  WaitForCopies<0>();
  return largest;
}

// One token, whose weights stay in registers.
__device__ Shifts ScoreOne(const Stretch& stretch, const IndexScoring& scoring, RowReader& rows,
                           uint32_t descriptor, const Shared& shared) {
  const HeadWeights weights(shared.tails[0]);
  const int count = shared.counts[0];
  Output output(stretch, scoring);
  return ForEachStep(stretch, rows, [&](const Keys& keys) {
    float products[32];
    MultiplyKeys(keys, descriptor, products);
    output.Store(0, count, SumHeads<0>(products, weights) * keys.scale);
    output.NextStep();
  });
}

// Any number of tokens, two at a time.
__device__ Shifts ScoreMany(const Stretch& stretch, const IndexScoring& scoring, RowReader& rows,
                            uint32_t descriptor, const Shared& shared) {
  const int tokens = stretch.group.tokens;
  Output output(stretch, scoring);
  return ForEachStep(stretch, rows, [&](const Keys& keys) {
    int64_t offset = 0;
    int token = 0;
    const auto store = [&](float sum) {
      output.Store(offset, shared.counts[token], sum * keys.scale);
      offset += scoring.stride;
      ++token;
    };
    while (token + 1 < tokens) {
      float products[64];
      MultiplyKeys(keys, descriptor + token * (kMatrixBytes / 16), products);
      store(SumHeads<0>(products, HeadWeights(shared.tails[token])));
      store(SumHeads<32>(products, HeadWeights(shared.tails[token])));
    }
    if (token < tokens) {
      float products[32];
      MultiplyKeys(keys, descriptor + token * (kMatrixBytes / 16), products);
      store(SumHeads<0>(products, HeadWeights(shared.tails[token])));
    }
    output.NextStep();
  });
}

// Scores again what the tensor cores could not: rows that are wide, and all rows of wide tokens.
__device__ void ScoreWide(const Stretch& stretch, const IndexScoring& scoring,
                          const Shared& shared) {
  const int lane = threadIdx.x % 32;
  const auto* const prepared = static_cast<const PreparedIndexQuery*>(scoring.prepared);
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

// Blocks share the steps of all groups evenly: a block may have the end of one and the start of
// another.
template <bool kOneToken>
__global__ void __launch_bounds__(kThreads, 1) ScoreKernel(const IndexScoring scoring) {
  extern __shared__ __align__(1024) uint8_t dynamic[];
  uint8_t* const matrices = dynamic;
  Shared& shared = *reinterpret_cast<Shared*>(dynamic + (kOneToken ? 1 : scoring.group_tokens_max) *
                                                            kMatrixBytes);
  if (threadIdx.x < kIndexShiftMax + 2) {
    shared.slots.magnitudes[threadIdx.x] = IndexMagnitudes(static_cast<int>(threadIdx.x));
  }
  const uint32_t descriptor = DescriptorLow(matrices);
  LetNextStart();
  WaitForKernelsBefore();
  const int64_t all = AllSteps(scoring.groups, scoring.group_count);
  const auto end = static_cast<int>(all * (blockIdx.x + 1) / gridDim.x);
  auto next = static_cast<int>(all * blockIdx.x / gridDim.x);
  while (next < end) {
    Stretch stretch = FindStretch(scoring.groups, scoring.group_count, next);
    stretch.last = min(stretch.last, stretch.first + end - next);
    next += stretch.last - stretch.first;
    // Before the rows, which would stand in their way.
    FetchTokens(stretch.group, scoring, matrices, shared);
    RowReader rows(stretch, shared.slots);
    for (int stage = 0; stage < kStages - 1; ++stage) rows.Fetch(stage);
    WaitForTokens();
    const Shifts largest = kOneToken ? ScoreOne(stretch, scoring, rows, descriptor, shared)
                                     : ScoreMany(stretch, scoring, rows, descriptor, shared);
    // A group of zeros may lie too far below the others without harm: ScoreWide looks again.
    bool wide = __any_sync(kWarp, __vcmpeq2(largest, kTooFar) != 0);
    for (int token = 0; token < stretch.group.tokens; ++token) {
      wide |= shared.tails[token].wide != 0;
    }
    if (wide) ScoreWide(stretch, scoring, shared);
  }
}

absl::Status Launch(void (*kernel)(IndexScoring), const IndexScoring& scoring, Stream stream) {
  const int shared = SharedBytes(static_cast<int>(scoring.group_tokens_max));
  CAIRN_RETURN_IF_ERROR(
      CudaStatus(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared),
                 "ScoreIndexRows: shared memory"));
  const LaunchShape shape = {dim3(static_cast<unsigned>(MultiprocessorCount())), kThreads, shared};
  return LaunchEarly(stream, "ScoreIndexRows", shape, kernel, scoring);
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
  return scoring.group_tokens_max == 1 ? Launch(ScoreKernel<true>, scoring, stream)
                                       : Launch(ScoreKernel<false>, scoring, stream);
}

}  // namespace cairn::kernels::cuda
