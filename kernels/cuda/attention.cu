// Blocks of threads are persistent and take one (token, 64 heads) after the other. Of four
// warpgroups, two produce: they decode the list's rows into two buffers of 64 rows in shared memory
// (attention_rows.cuh); the scorers make scores and probabilities and add up output dims 0 to 255;
// the helpers get the probabilities through shared memory and add up dims 256 to 511, and bring the
// next item's queries. Producers run ahead into the next item while the last one is written out.
#include <algorithm>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_few.h"
#include "kernels/cuda/attention_mma.cuh"
#include "kernels/cuda/attention_parts.cuh"
#include "kernels/cuda/attention_rows.cuh"
#include "kernels/cuda/launch.cuh"

namespace cairn::kernels::cuda {
namespace {

using namespace attention;  // NOLINT(google-build-using-namespace): this file is its user

constexpr int kThreads = (2 + kProducers) * kGroupThreads;

// What there is to know of an item beside its rows and queries.
struct Header {
  AttentionList list;
  float sinks[kHeadBlock];
  float2 angles[kAttentionRope / 2];
};

struct Shared {
  RowRing rows;
  alignas(1024) uint8_t queries[kBlockBytes];
  // Of a block, from scorers to helpers, by thread: BF16 probabilities as fragments, and two
  // factors for the output's rows.
  uint4 probabilities[4][kGroupThreads];
  float2 factors[kGroupThreads];
  // Of an item and the next.
  Header headers[2];
  // Each barrier's phases alternate: full and empty of the thing named.
  uint64_t message_full, message_empty, queries_full, queries_empty;
};

// The helpers' part of an item's start: its header and queries, which arrive at queries_full.
__device__ void LoadItem(const AttentionBatch& batch, const Item& item, Header& header,
                         Shared& shared) {
  const int thread = threadIdx.x % kGroupThreads;
  LoadQueries(batch, item, shared.queries);
  const auto load = [&](auto* to, const auto* from, int first) {
    const int i = thread - first;
    if (0 <= i && i < static_cast<int>(sizeof(*to) / 16)) {
      LoadAsync16(SharedAddress(to) + 16 * i, reinterpret_cast<const uint8_t*>(from) + 16 * i);
    }
  };
  load(&header.list, batch.lists + item.token, 0);
  load(&header.sinks, batch.sink + item.head, 32);
  if (batch.angles != nullptr) {
    load(&header.angles, batch.angles + item.token * kAttentionRope, 64);
  }
  ArriveAfterLoads(SharedAddress(&shared.queries_full));
}

// ---- consumers ----

// output = output * factors + probabilities * 256 dims of the rows at `rows`.
__device__ inline void AddBlock(float (&output)[128], float2 factors,
                                const uint32_t (&probabilities)[16], uint32_t rows) {
  ScaleRows(output, factors);
  const Operand tiles = Operand::AcrossRows(rows, kTileBytes);
  WgmmaFence();
#pragma unroll
  for (int k = 0; k < kBlockRows / 16; ++k) {
    MultiplyRows<0>(output, probabilities + 4 * k, tiles.At(k * 16 * 128));
    MultiplyRows<1>(output, probabilities + 4 * k, tiles.At(k * 16 * 128 + 2 * kTileBytes));
  }
  FinishProducts(output);
}

__device__ void Score(const AttentionBatch& batch, Shared& shared) {
  const int thread = threadIdx.x % kGroupThreads;
  const int row = thread / 32 * 16 + thread % 32 / 4;
  const Operand queries = Operand::AlongRows(SharedAddress(shared.queries));
  const int items = Items(batch);
  uint32_t block = 0, message = 0, turn = 0;  // of all items
  for (int i = blockIdx.x; i < items; i += gridDim.x, ++turn) {
    const Item item(batch, i);
    const Header& header = shared.headers[turn % 2];
    WaitFull(shared.queries_full, turn);
    FenceForProducts();
    const int count = ListLength(header.list), blocks = BlocksOf(header.list);
    const float sinks[2] = {header.sinks[row], header.sinks[row + 8]};
    float output[128] = {};
    Softmax softmax;
    for (int b = 0; b < blocks; ++b, ++block, ++message) {
      const uint32_t rows = shared.rows.block(block);
      shared.rows.WaitFull(block);
      float scores[32];
      MakeScores(scores, queries, rows);
      if (b == blocks - 1) WarpArrive(SharedAddress(&shared.queries_empty));
      uint32_t probabilities[16];
      const float2 factors = softmax.Add(scores, count - b * kBlockRows, probabilities);
      WaitEmpty(shared.message_empty, message);
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        shared.probabilities[k][thread] = {probabilities[4 * k], probabilities[4 * k + 1],
                                           probabilities[4 * k + 2], probabilities[4 * k + 3]};
      }
      shared.factors[thread] = factors;
      BarrierArrive(SharedAddress(&shared.message_full));
      AddBlock(output, factors, probabilities, rows);
      shared.rows.Release(block);
    }
    const float2 inverse = {softmax.Inverse(0, sinks[0]), softmax.Inverse(1, sinks[1])};
    WaitEmpty(shared.message_empty, message++);
    shared.factors[thread] = inverse;
    BarrierArrive(SharedAddress(&shared.message_full));
    ScaleRows(output, inverse);
    StoreOutput(output, batch.out + (item.Row(batch) + thread / 32 * 16) * kAttentionDim);
  }
}

__device__ void Help(const AttentionBatch& batch, Shared& shared) {
  const int thread = threadIdx.x % kGroupThreads;
  LoadItem(batch, Item(batch, blockIdx.x), shared.headers[0], shared);
  const int items = Items(batch);
  uint32_t block = 0, message = 0, turn = 0;  // of all items
  for (int i = blockIdx.x; i < items; i += gridDim.x, ++turn) {
    const Item item(batch, i);
    const Header& header = shared.headers[turn % 2];
    WaitFull(shared.queries_full, turn);
    const int blocks = BlocksOf(header.list);
    const int after = i + static_cast<int>(gridDim.x);
    const bool more = after < items;
    float output[128] = {};
    for (int b = 0; b < blocks; ++b, ++block, ++message) {
      WaitFull(shared.message_full, message);
      uint32_t probabilities[16];
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const uint4 v = shared.probabilities[k][thread];
        probabilities[4 * k] = v.x, probabilities[4 * k + 1] = v.y;
        probabilities[4 * k + 2] = v.z, probabilities[4 * k + 3] = v.w;
      }
      const float2 factors = shared.factors[thread];
      BarrierArrive(SharedAddress(&shared.message_empty));
      if (b == blocks - 1 && more) {
        WaitFull(shared.queries_empty, turn);  // the scorers have no more use for them
        LoadItem(batch, Item(batch, after), shared.headers[(turn + 1) % 2], shared);
      }
      shared.rows.WaitFull(block);
      AddBlock(output, factors, probabilities, shared.rows.block(block) + 4 * kTileBytes);
      shared.rows.Release(block);
    }
    WaitFull(shared.message_full, message++);
    const float2 inverse = shared.factors[thread];
    BarrierArrive(SharedAddress(&shared.message_empty));
    ScaleRows(output, inverse);
    if (batch.angles != nullptr) TurnBack<24>(output, header.angles);
    StoreOutput(output, batch.out + (item.Row(batch) + thread / 32 * 16) * kAttentionDim + 256);
  }
}

__global__ __launch_bounds__(kThreads,
                             1) void AttendKernel(const __grid_constant__ AttentionBatch batch) {
  extern __shared__ uint8_t memory[];
  Shared& shared = *AlignedShared<Shared>(memory);
  LetNextStart();
  if (threadIdx.x == 0) {
    shared.rows.Init(8);
    BarrierInit(SharedAddress(&shared.message_full), kGroupThreads);
    BarrierInit(SharedAddress(&shared.message_empty), kGroupThreads);
    BarrierInit(SharedAddress(&shared.queries_full), kGroupThreads);
    BarrierInit(SharedAddress(&shared.queries_empty), 4);
  }
  __syncthreads();
  WaitForKernelsBefore();
  const int group = threadIdx.x / kGroupThreads;
  if (group == 0) {
    TakeRegisters<192>();
    Score(batch, shared);
  } else if (group == 1) {
    TakeRegisters<192>();
    Help(batch, shared);
  } else {
    GiveRegisters<64>();
    Produce<false>(batch, {static_cast<int>(blockIdx.x), static_cast<int>(gridDim.x), 0, 1},
                   shared.rows, group - 2);
  }
}

absl::Status CheckPool(const RowPool& pool, const char* name) {
  if (reinterpret_cast<uintptr_t>(pool.data) % 16 == 0 &&
      reinterpret_cast<uintptr_t>(pool.scales) % 8 == 0 &&
      (pool.data == nullptr) == (pool.scales == nullptr)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "attention: ", name, ": data must be aligned to 16 bytes, scales to 8, both or none given"));
}

absl::Status Check(const AttentionBatch& batch) {
  if (batch.tokens < 0 || batch.heads <= 0 || batch.heads % kHeadBlock != 0 ||
      batch.tokens > INT32_MAX / (batch.heads / kHeadBlock)) {
    return absl::InvalidArgumentError(
        absl::StrCat("attention: ", batch.tokens, " tokens of ", batch.heads,
                     " heads; heads must be a multiple of ", kHeadBlock));
  }
  for (const void* pointer :
       {static_cast<const void*>(batch.q), static_cast<const void*>(batch.out),
        static_cast<const void*>(batch.lists), static_cast<const void*>(batch.sink)}) {
    if (pointer == nullptr || reinterpret_cast<uintptr_t>(pointer) % 16 != 0) {
      return absl::InvalidArgumentError(
          "attention: q, out, lists and sink must be given, aligned to 16 bytes");
    }
  }
  if (reinterpret_cast<uintptr_t>(batch.angles) % 16 != 0) {
    return absl::InvalidArgumentError("attention: angles must be aligned to 16 bytes");
  }
  if (batch.ring < 0 || batch.index_stride < 0) {
    return absl::InvalidArgumentError("attention: ring and index_stride must not be negative");
  }
  if (reinterpret_cast<uintptr_t>(batch.scratch) % 16 != 0 || batch.rows_max < 0) {
    return absl::InvalidArgumentError(
        "attention: scratch must be aligned to 16 bytes, rows_max not negative");
  }
  CAIRN_RETURN_IF_ERROR(CheckPool(batch.window, "window"));
  return CheckPool(batch.compressed, "compressed");
}

}  // namespace

int64_t AttentionScratchBytes(int64_t tokens, int64_t heads, int64_t rows_max) {
  const int64_t items = tokens * (heads / kHeadBlock);
  if (4 * items > MultiprocessorCount()) return 0;
  return items * FewBlocks(rows_max) * int64_t{kHeadBlock * kBlockRows * sizeof(float)};
}

absl::Status Attend(const AttentionBatch& batch, Stream stream) {
  if (batch.tokens == 0) return absl::OkStatus();
  CAIRN_RETURN_IF_ERROR(Check(batch));
  if (batch.scratch != nullptr &&
      AttentionScratchBytes(batch.tokens, batch.heads, batch.rows_max) > 0) {
    return AttendFew(batch, stream);
  }
  constexpr int kSharedBytes = sizeof(Shared) + 1024;
  static const absl::Status* const prepared =
      new absl::Status(AllowShared(AttendKernel, kSharedBytes));
  CAIRN_RETURN_IF_ERROR(*prepared);
  const int64_t items = batch.tokens * (batch.heads / kHeadBlock);
  const auto blocks = static_cast<unsigned>(std::min<int64_t>(items, MultiprocessorCount()));
  return LaunchEarly(stream, "attention", {dim3(blocks), kThreads, kSharedBytes}, AttendKernel,
                     batch);
}

}  // namespace cairn::kernels::cuda
