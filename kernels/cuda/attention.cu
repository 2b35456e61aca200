// Blocks of threads are persistent and take one (token, 64 heads) after the other. Of three
// warpgroups, the producers decode the list's rows into two buffers of 64 rows in shared memory
// (attention_rows.cuh); the scorers make scores and probabilities and add up output dims 0 to 255;
// the helpers get the probabilities through shared memory and add up dims 256 to 511, and bring the
// next item's queries. Producers run ahead into the next item while the last one is written out.
#include <algorithm>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_mma.cuh"
#include "kernels/cuda/attention_parts.cuh"
#include "kernels/cuda/attention_rows.cuh"

namespace cairn::kernels::cuda {
namespace {

using namespace attention;  // NOLINT(google-build-using-namespace): this file is its user

constexpr int kThreads = 3 * kGroupThreads;

struct Shared {
  alignas(1024) uint8_t rows[2][kBlockBytes];
  alignas(1024) uint8_t queries[kBlockBytes];
  // Of a block, from scorers to helpers, by thread: BF16 probabilities as fragments, and two
  // factors for the output's rows.
  uint4 probabilities[4][kGroupThreads];
  float2 factors[kGroupThreads];
  // Each barrier's phases alternate: full and empty of the thing named.
  uint64_t rows_full[2], rows_empty[2], message_full, message_empty, queries_full, queries_empty;
};

// The n-th use of a thing with one place (or the n-th round of a ring) waits for these.
__device__ inline void WaitFull(uint64_t& barrier, uint32_t n) {
  BarrierWait(SharedAddress(&barrier), n & 1);
}
__device__ inline void WaitEmpty(uint64_t& barrier, uint32_t n) {
  BarrierWait(SharedAddress(&barrier), (n & 1) ^ 1);
}

// ---- producers ----

// Where a producer thread is in the work: a half block of an item.
class Halves {
 public:
  __device__ Halves(const AttentionBatch& batch, int row_in_half)
      : batch_(batch), items_(Items(batch)), row_in_half_(row_in_half), item_(blockIdx.x) {
    TakeList();
  }
  __device__ bool done() const { return item_ >= items_; }
  __device__ StoredRow row() const {
    return FindRow(batch_, token_, list_, half_ * (kBlockRows / 2) + row_in_half_);
  }
  __device__ void Next() {
    if (++half_ < 2 * BlocksOf(list_)) return;
    half_ = 0;
    item_ += gridDim.x;
    TakeList();
  }

 private:
  __device__ void TakeList() {
    if (done()) return;
    token_ = Item(batch_, item_).token;
    list_ = batch_.lists[token_];
  }
  const AttentionBatch& batch_;
  const int items_, row_in_half_;
  int item_, half_ = 0, token_ = 0;
  AttentionList list_;
};

__device__ void Produce(const AttentionBatch& batch, Shared& shared) {
  const int thread = threadIdx.x % kGroupThreads;
  const int lane = thread % 4, row_in_half = thread / 4;
  Halves halves(batch, row_in_half);
  RowPart part;
  const StoredRow first = halves.row();
  part.scales = RowPart::LoadScales(first);
#pragma unroll
  for (int g = 0; g < kGroups; ++g) part.LoadCodes(first, lane, g);
  part.LoadRope(first, lane);
  // Of this thread's 32 bytes of each tile.
  const uint32_t chunk0 = ((2 * lane) ^ (row_in_half % 8)) * 16, chunk1 = chunk0 ^ 16;
  const uint32_t rope_chunk = (lane ^ (row_in_half % 8)) * 16;
  for (uint32_t n = 0; !halves.done(); ++n) {  // n: half blocks, of all items
    const uint32_t block = n / 2;
    halves.Next();
    const bool more = !halves.done();
    const StoredRow next = more ? halves.row() : StoredRow{};
    const uint2 scales = RowPart::LoadScales(next);
    const uint32_t to =
        SharedAddress(shared.rows[block % 2]) + (n % 2 * (kBlockRows / 2) + row_in_half) * 128;
    if (n % 2 == 0) WaitEmpty(shared.rows_empty[block % 2], block / 2);
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      uint4 low, high;
      DecodeSixteen(part.codes[g], part.Scale(g), low, high);
      part.LoadCodes(next, lane, g);
      __syncwarp();  // what is asked for is asked for now, not at the end of the loop
      StoreShared16(to + g * kTileBytes + chunk0, low);
      StoreShared16(to + g * kTileBytes + chunk1, high);
    }
    StoreShared16(to + kGroups * kTileBytes + rope_chunk, part.rope[0]);
    StoreShared16(to + kGroups * kTileBytes + (rope_chunk ^ 64), part.rope[1]);
    part.LoadRope(next, lane);
    part.scales = scales;
    if (n % 2 == 1) {
      FenceForProducts();
      BarrierArrive(SharedAddress(&shared.rows_full[block % 2]));
    }
  }
}

// ---- queries ----

// Asks for an item's queries, 64 KB in a row in memory, by one warpgroup.
__device__ void LoadQueries(const AttentionBatch& batch, const Item& item, Shared& shared) {
  const int thread = threadIdx.x % kGroupThreads;
  const uint16_t* from = batch.q + item.Row(batch) * kAttentionDim + thread % 64 * 8;
  // Thread t brings 16-byte chunk t % 64 of rows t / 64, + 2, ...
  const uint32_t tile = SharedAddress(shared.queries) + thread % 64 / 8 * kTileBytes;
  for (int row = thread / 64; row < kHeadBlock; row += 2) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(tile + row * 128 +
                                                                   (thread % 8 ^ row % 8) * 16),
                 "l"(from + row * kAttentionDim)
                 : "memory");
  }
}

__device__ void FinishQueries(Shared& shared) {
  asm volatile("cp.async.wait_all;" ::: "memory");
  FenceForProducts();
  WarpArrive(SharedAddress(&shared.queries_full));
}

// ---- consumers ----

// output = output * factors + probabilities * 256 dims of the rows at `rows`.
__device__ inline void AddBlock(float (&output)[128], float2 factors,
                                const uint32_t (&probabilities)[16], uint32_t rows) {
  ScaleRows(output, factors);
  const Operand tiles = Operand::AcrossRows(rows, kTileBytes);
  ProductFence();
#pragma unroll
  for (int k = 0; k < kBlockRows / 16; ++k) {
    MultiplyRows(output, probabilities + 4 * k, tiles.At(k * 16 * 128));
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
    const AttentionList list = batch.lists[item.token];
    const int count = ListLength(list), blocks = BlocksOf(list);
    const float sinks[2] = {batch.sink[item.head + row], batch.sink[item.head + row + 8]};
    float output[128] = {};
    Softmax softmax;
    WaitFull(shared.queries_full, turn);
    for (int b = 0; b < blocks; ++b, ++block, ++message) {
      const uint32_t rows = SharedAddress(shared.rows[block % 2]);
      WaitFull(shared.rows_full[block % 2], block / 2);
      const Operand keys = Operand::AlongRows(rows);
      float scores[32];
      ProductFence();
#pragma unroll
      for (int k = 0; k < kAttentionDim / 16; ++k) {
        const uint32_t at = k / 4 * kTileBytes + k % 4 * 32;
        MultiplyScores(scores, queries.At(at), keys.At(at), k > 0);
      }
      FinishProducts(scores);
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
      WarpArrive(SharedAddress(&shared.rows_empty[block % 2]));
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
  LoadQueries(batch, Item(batch, blockIdx.x), shared);
  FinishQueries(shared);
  const int items = Items(batch);
  uint32_t block = 0, message = 0, turn = 0;  // of all items
  for (int i = blockIdx.x; i < items; i += gridDim.x, ++turn) {
    const Item item(batch, i);
    const int blocks = BlocksOf(batch.lists[item.token]);
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
      WarpArrive(SharedAddress(&shared.message_empty));
      if (b == blocks - 1 && more) {
        WaitFull(shared.queries_empty, turn);  // the scorers have no more use for them
        LoadQueries(batch, Item(batch, after), shared);
      }
      WaitFull(shared.rows_full[block % 2], block / 2);
      AddBlock(output, factors, probabilities,
               SharedAddress(shared.rows[block % 2]) + 4 * kTileBytes);
      WarpArrive(SharedAddress(&shared.rows_empty[block % 2]));
    }
    WaitFull(shared.message_full, message++);
    const float2 inverse = shared.factors[thread];
    WarpArrive(SharedAddress(&shared.message_empty));
    ScaleRows(output, inverse);
    if (batch.angles != nullptr) TurnBack<24>(output, batch.angles + item.token * kAttentionRope);
    StoreOutput(output, batch.out + (item.Row(batch) + thread / 32 * 16) * kAttentionDim + 256);
    if (more) FinishQueries(shared);
  }
}

__global__ __launch_bounds__(kThreads,
                             1) void AttendKernel(const __grid_constant__ AttentionBatch batch) {
  extern __shared__ uint8_t memory[];
  Shared& shared =
      *reinterpret_cast<Shared*>(memory + (1024 - SharedAddress(memory) % 1024) % 1024);
  if (threadIdx.x == 0) {
    for (int i = 0; i < 2; ++i) {
      BarrierInit(SharedAddress(&shared.rows_full[i]), kGroupThreads);
      BarrierInit(SharedAddress(&shared.rows_empty[i]), 8);
    }
    BarrierInit(SharedAddress(&shared.message_full), kGroupThreads);
    BarrierInit(SharedAddress(&shared.message_empty), 4);
    BarrierInit(SharedAddress(&shared.queries_full), 4);
    BarrierInit(SharedAddress(&shared.queries_empty), 4);
  }
  __syncthreads();
  const int group = threadIdx.x / kGroupThreads;
  if (group == 0) {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 208;");
    Score(batch, shared);
  } else if (group == 1) {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 208;");
    Help(batch, shared);
  } else {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 88;");
    Produce(batch, shared);
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
        static_cast<const void*>(batch.lists)}) {
    if (pointer == nullptr || reinterpret_cast<uintptr_t>(pointer) % 16 != 0) {
      return absl::InvalidArgumentError("attention: q, out and lists must be aligned to 16 bytes");
    }
  }
  if (batch.sink == nullptr) return absl::InvalidArgumentError("attention: no sink");
  if (reinterpret_cast<uintptr_t>(batch.angles) % 8 != 0) {
    return absl::InvalidArgumentError("attention: angles must be aligned to 8 bytes");
  }
  if (batch.ring < 0 || batch.index_stride < 0) {
    return absl::InvalidArgumentError("attention: ring and index_stride must not be negative");
  }
  CAIRN_RETURN_IF_ERROR(CheckPool(batch.window, "window"));
  return CheckPool(batch.compressed, "compressed");
}

}  // namespace

absl::Status Attend(const AttentionBatch& batch, Stream stream) {
  if (batch.tokens == 0) return absl::OkStatus();
  CAIRN_RETURN_IF_ERROR(Check(batch));
  constexpr int kSharedBytes = sizeof(Shared) + 1024;
  static const int* const prepared = new int(cudaFuncSetAttribute(
      AttendKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes));
  CAIRN_RETURN_IF_ERROR(CudaStatus(*prepared, "attention's shared memory"));
  const int64_t items = batch.tokens * (batch.heads / kHeadBlock);
  const auto blocks = static_cast<unsigned>(std::min<int64_t>(items, MultiprocessorCount()));
  AttendKernel<<<blocks, kThreads, kSharedBytes, stream>>>(batch);
  return LaunchStatus("attention");
}

}  // namespace cairn::kernels::cuda
