// Two kernels. ScoreKernel: as many blocks of threads an item as fill the GPU, which take the
// list's blocks in turn; scores go to scratch memory as the fragments they are. ValueKernel:
// eight blocks of threads an item, each with 64 of the output's dims: it takes the whole list's
// scores to probabilities, as the seven others do, and adds up its dims of every row. It starts
// while scores are still made, and has its rows decoded by the time they are there.
#include <algorithm>

#include "kernels/cuda/attention_few.h"
#include "kernels/cuda/attention_mma.cuh"
#include "kernels/cuda/attention_parts.cuh"
#include "kernels/cuda/attention_rows.cuh"
#include "kernels/cuda/launch.cuh"

namespace cairn::kernels::cuda {
namespace {

using namespace attention;  // NOLINT(google-build-using-namespace): this file is its user

constexpr int kSlices = kAttentionDim / 64;

// A block's scores: 32 a thread, four at a time side by side.
__device__ inline float4* BlockScores(const AttentionBatch& batch, int blocks_max, int item,
                                      int block) {
  return static_cast<float4*>(batch.scratch) +
         (static_cast<int64_t>(item) * blocks_max + block) * (8 * kGroupThreads) +
         threadIdx.x % kGroupThreads;
}

// ---- scores ----

struct ScoreShared {
  RowRing rows;
  alignas(1024) uint8_t queries[kBlockBytes];
};

constexpr int kScoreThreads = (1 + kProducers) * kGroupThreads;

// Grid: (blocks of threads an item, items).
__global__ __launch_bounds__(kScoreThreads,
                             1) void ScoreKernel(const __grid_constant__ AttentionBatch batch,
                                                 int blocks_max) {
  extern __shared__ uint8_t memory[];
  ScoreShared& shared = *AlignedShared<ScoreShared>(memory);
  const int item = blockIdx.y, step = gridDim.x;
  if (threadIdx.x == 0) shared.rows.Init(4);
  __syncthreads();
  // The kernel behind this one reads rows before it waits, so they are to be there when it starts.
  WaitForKernelsBefore();
  LetNextStart();
  const int blocks = BlocksOf(batch.lists[Item(batch, item).token]);
  if (static_cast<int>(blockIdx.x) >= blocks) return;
  if (threadIdx.x >= kGroupThreads) {
    Produce<true>(batch, {item, Items(batch), static_cast<int>(blockIdx.x), step}, shared.rows,
                  threadIdx.x / kGroupThreads - 1);
    return;
  }
  LoadQueries(batch, Item(batch, item), shared.queries);
  FinishLoads();
  NamedBarrier(1, kGroupThreads);
  const Operand queries = Operand::AlongRows(SharedAddress(shared.queries));
  uint32_t n = 0;
  for (int b = blockIdx.x; b < blocks; b += step, ++n) {
    shared.rows.WaitFull(n);
    float scores[32];
    MakeScores(scores, queries, shared.rows.block(n));
    shared.rows.Release(n);
    float4* const to = BlockScores(batch, blocks_max, item, b);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      to[i * kGroupThreads] = {scores[4 * i], scores[4 * i + 1], scores[4 * i + 2],
                               scores[4 * i + 3]};
    }
  }
}

// ---- outputs ----

constexpr int kValueThreads = 2 * kGroupThreads;  // those who multiply, and producers
constexpr int kRing = 8;                          // blocks whose 64 dims are decoded at a time

struct ValueShared {
  alignas(1024) uint8_t tiles[kRing][kTileBytes];
  uint64_t full[kRing], empty[kRing];
};

// 64 dims of the rows of every block, decoded.
__device__ void ProduceSlice(const AttentionBatch& batch, int token, int slice,
                             ValueShared& shared) {
  const int thread = threadIdx.x % kGroupThreads, lane = thread % 4;
  const Rows rows(batch, token);
  const int blocks = rows.blocks();
  const bool rope = slice == kGroups;
  // Of each block rows thread / 4 and + 32, of each row this lane's part of the slice; so many
  // blocks' are asked for together, first their indices.
  constexpr int kTogether = 4, kParts = 2 * kTogether;
  for (int b = 0; b < blocks; b += kTogether) {
    Place places[kParts];
    uint4 low[kParts], high[kParts];
    uint2 scales[kParts];
#pragma unroll
    for (int i = 0; i < kParts; ++i) {
      places[i] = rows.Find(batch, b * kBlockRows + i * kHalfRows + thread / 4);
    }
#pragma unroll
    for (int i = 0; i < kParts; ++i) {
      const StoredRow row = rows.At(batch, places[i]);
      scales[i] = RowPart::LoadScales(row);
      low[i] = RowPart::Load16(row, 64 * slice + 16 * lane);
      if (rope) high[i] = RowPart::Load16(row, 64 * slice + 64 + 16 * lane);
    }
#pragma unroll
    for (int i = 0; i < kParts; ++i) {
      const int block = b + i / 2, row = i % 2 * kHalfRows + thread / 4;
      if (block >= blocks) return;
      if (i % 2 == 0) WaitEmpty(shared.empty[block % kRing], block / kRing);
      if (!rope) DecodeSixteen<true>(low[i], ScaleOf(scales[i], slice), low[i], high[i]);
      const uint32_t to = SharedAddress(shared.tiles[block % kRing]) + row * 128;
      StoreShared16(to + ((rope ? lane : 2 * lane) ^ row % 8) * 16, low[i]);
      StoreShared16(to + ((rope ? lane + 4 : 2 * lane + 1) ^ row % 8) * 16, high[i]);
      if (i % 2 == 0) continue;
      FenceForProducts();
      BarrierArrive(SharedAddress(&shared.full[block % kRing]));
    }
  }
}

__device__ void AddUp(const AttentionBatch& batch, int blocks_max, int item_index, int slice,
                      ValueShared& shared) {
  const int thread = threadIdx.x;
  const int row = thread / 32 * 16 + thread % 32 / 4;
  const Item item(batch, item_index);
  const AttentionList list = batch.lists[item.token];
  const int count = ListLength(list), blocks = BlocksOf(list);
  const float sinks[2] = {batch.sink[item.head + row], batch.sink[item.head + row + 8]};
  float output[32] = {};
  float4 ahead[8];  // the next block's scores
  Softmax softmax;
  const auto load = [&](int block) {
    const float4* const from = BlockScores(batch, blocks_max, item_index, min(block, blocks - 1));
#pragma unroll
    for (int i = 0; i < 8; ++i) ahead[i] = __ldcg(from + i * kGroupThreads);
  };
  WaitForKernelsBefore();
  load(0);
  for (int b = 0; b < blocks; ++b) {
    float scores[32];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      scores[4 * i] = ahead[i].x, scores[4 * i + 1] = ahead[i].y;
      scores[4 * i + 2] = ahead[i].z, scores[4 * i + 3] = ahead[i].w;
    }
    load(b + 1);
    uint32_t probabilities[16];
    ScaleRows(output, softmax.Add(scores, count - b * kBlockRows, probabilities));
    WaitFull(shared.full[b % kRing], b / kRing);
    const Operand tile = Operand::AcrossRows(SharedAddress(shared.tiles[b % kRing]), kTileBytes);
    WgmmaFence();
#pragma unroll
    for (int k = 0; k < kBlockRows / 16; ++k) {
      MultiplyRows(output, probabilities + 4 * k, tile.At(k * 16 * 128));
    }
    FinishProducts(output);
    WarpArrive(SharedAddress(&shared.empty[b % kRing]));
  }
  ScaleRows(output, {softmax.Inverse(0, sinks[0]), softmax.Inverse(1, sinks[1])});
  if (slice == kGroups && batch.angles != nullptr) {
    TurnBack<0>(output,
                reinterpret_cast<const float2*>(batch.angles + item.token * kAttentionRope));
  }
  StoreOutput(output,
              batch.out + (item.Row(batch) + thread / 32 * 16) * kAttentionDim + slice * 64);
}

// Grid: (slices, items).
__global__ __launch_bounds__(kValueThreads,
                             2) void ValueKernel(const __grid_constant__ AttentionBatch batch,
                                                 int blocks_max) {
  extern __shared__ uint8_t memory[];
  ValueShared& shared = *AlignedShared<ValueShared>(memory);
  if (threadIdx.x == 0) {
    for (int i = 0; i < kRing; ++i) {
      BarrierInit(SharedAddress(&shared.full[i]), kGroupThreads);
      BarrierInit(SharedAddress(&shared.empty[i]), 4);
    }
  }
  __syncthreads();
  if (threadIdx.x < kGroupThreads) {
    AddUp(batch, blocks_max, blockIdx.y, blockIdx.x, shared);
  } else {
    ProduceSlice(batch, Item(batch, blockIdx.y).token, blockIdx.x, shared);
  }
}

}  // namespace

absl::Status AttendFew(const AttentionBatch& batch, Stream stream) {
  constexpr int kScoreBytes = sizeof(ScoreShared) + 1024, kValueBytes = sizeof(ValueShared) + 1024;
  static const absl::Status* const prepared = new absl::Status([] {
    CAIRN_RETURN_IF_ERROR(AllowShared(ScoreKernel, kScoreBytes));
    return AllowShared(ValueKernel, kValueBytes);
  }());
  CAIRN_RETURN_IF_ERROR(*prepared);
  const auto items = static_cast<unsigned>(batch.tokens * (batch.heads / kHeadBlock));
  const int64_t blocks_max = FewBlocks(batch.rows_max);
  const auto shares =
      static_cast<unsigned>(std::clamp<int64_t>(MultiprocessorCount() / items, 1, blocks_max));
  CAIRN_RETURN_IF_ERROR(LaunchEarly(stream, "attention's scores",
                                    {dim3(shares, items), kScoreThreads, kScoreBytes}, ScoreKernel,
                                    batch, static_cast<int>(blocks_max)));
  return LaunchEarly(stream, "attention's outputs",
                     {dim3(kSlices, items), kValueThreads, kValueBytes}, ValueKernel, batch,
                     static_cast<int>(blocks_max));
}

}  // namespace cairn::kernels::cuda
