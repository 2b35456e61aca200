// attention_rows.cuh: a token's list as rows in memory, and a stored row's way into shared memory
// as BF16: the producers' part of attention.h's kernels.
//
// Two warpgroups bring a half of each block, 32 rows. Of a row, four lanes bring everything: lane k
// of four the 16 bytes k of each group of 64 codes, and 16-byte chunks k and k + 4 of the BF16
// part. What the next half needs is asked for as soon as registers are free, and the index it is
// found by a half before that, so that memory works while codes are decoded.
#ifndef CAIRN_KERNELS_CUDA_ATTENTION_ROWS_CUH_
#define CAIRN_KERNELS_CUDA_ATTENTION_ROWS_CUH_

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_mma.cuh"

namespace cairn::kernels::cuda::attention {

using namespace mma;  // NOLINT(google-build-using-namespace): its only users

inline constexpr int kHeadBlock = 64;
inline constexpr int kGroupThreads = 128;  // of a warpgroup
inline constexpr int kBlockRows = 64;
inline constexpr int kHalfRows = 32;
inline constexpr int kProducers = 2;  // warpgroups
inline constexpr int kRowDataBytes = 576;
inline constexpr int kRowScaleBytes = 8;
inline constexpr int kGroups = 7;                            // of 64 codes
inline constexpr uint32_t kTileBytes = kBlockRows * 64 * 2;  // 64 rows x 64 dims
inline constexpr uint32_t kBlockBytes = 8 * kTileBytes;      // 64 rows x 512 dims

// One piece of work: 64 heads of a token.
struct Item {
  int token, head;

  __device__ Item(const AttentionBatch& batch, int i) {
    const int of_token = static_cast<int>(batch.heads) / kHeadBlock;
    token = i / of_token;
    head = i % of_token * kHeadBlock;
  }
  __device__ int64_t Row(const AttentionBatch& batch) const { return token * batch.heads + head; }
};

__device__ inline int Items(const AttentionBatch& batch) {
  return static_cast<int>(batch.tokens * (batch.heads / kHeadBlock));
}

__device__ inline int ListLength(const AttentionList& list) {
  return list.window_count + list.compressed_count;
}

// At least one, so that an empty list goes the way of all.
__device__ inline int BlocksOf(const AttentionList& list) {
  return max((ListLength(list) + kBlockRows - 1) / kBlockRows, 1);
}

struct StoredRow {
  const uint8_t* data;
  const uint8_t* scales;
};

// What stands after a list's end.
static __device__ const uint4 kZeroRow[kRowDataBytes / 16] = {};

// Where a row of a list is: in a pool, by a number in two parts of which the second may be on its
// way from memory.
struct Place {
  enum Kind { kNowhere, kNear, kFar } kind;
  int32_t index;
};

// A token's list. Branches are avoided: producers are few threads, whose time counts.
class Rows {
 public:
  Rows() = default;
  __device__ Rows(const AttentionBatch& batch, int token)
      : list_(batch.lists[token]), indices_(batch.indices) {
    if (indices_ != nullptr) indices_ += token * batch.index_stride;
  }
  __device__ int length() const { return ListLength(list_); }
  __device__ int blocks() const { return BlocksOf(list_); }
  __device__ Place Find(const AttentionBatch& batch, int j) const {
    const bool far = j >= list_.window_count, nowhere = j >= length();
    int slot = list_.window_first + j;
    slot -= batch.ring > 0 && slot >= batch.ring ? batch.ring : 0;
    int index = far ? j - list_.window_count : slot;
    // Volatile: asked for here.
    asm volatile(
        "{\n .reg .pred p;\n setp.ne.s32 p, %1, 0;\n"
        " @p ld.global.nc.s32 %0, [%2];\n}"
        : "+r"(index)
        : "r"(static_cast<int>(far && !nowhere && indices_ != nullptr)), "l"(indices_ + index));
    return {nowhere ? Place::kNowhere : far ? Place::kFar : Place::kNear, index};
  }
  __device__ StoredRow At(const AttentionBatch& batch, const Place& place) const {
    const auto* const zeros = reinterpret_cast<const uint8_t*>(kZeroRow);
    const bool far = place.kind == Place::kFar, nowhere = place.kind == Place::kNowhere;
    const int64_t row = place.index + (far ? list_.compressed_base : list_.window_base);
    const uint8_t* const data = far ? batch.compressed.data : batch.window.data;
    const uint8_t* const scales = far ? batch.compressed.scales : batch.window.scales;
    return {nowhere ? zeros : data + row * kRowDataBytes,
            nowhere ? zeros : scales + row * kRowScaleBytes};
  }

 private:
  AttentionList list_;
  const int32_t* indices_;
};

// Of a row, what one of its four lanes brings. Loads are volatile, so that they stay where they are
// written: before the work that hides them. They go to registers of their own, all of which are
// waited for at once: the processor waits for groups of loads, not for one.
inline constexpr uint32_t kScaleMax = 134;  // of groups below 57344

struct RowPart {
  uint4 codes[kGroups];
  uint4 rope[2];
  uint2 scales;

  __device__ static uint2 LoadScales(const StoredRow& row) {
    uint2 v;
    asm volatile("ld.global.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(row.scales));
    return v;
  }
  __device__ static uint4 Load16(const StoredRow& row, int offset) {
    uint4 v;
    asm volatile("ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(row.data + offset));
    return v;
  }
  __device__ void Load(const StoredRow& row, int lane) {
    scales = LoadScales(row);
#pragma unroll
    for (int g = 0; g < kGroups; ++g) codes[g] = Load16(row, 64 * g + 16 * lane);
    rope[0] = Load16(row, 64 * kGroups + 16 * lane);
    rope[1] = Load16(row, 64 * kGroups + 64 + 16 * lane);
    __syncwarp();  // all is asked for before what follows
  }
  // Waits for all of it; whether any row of the warp's may have a scale above kScaleMax. (A use of
  // every load, so that none is waited for later, together with newer ones. Seldom says true
  // without need, which costs time only.)
  __device__ bool ArrivedLarge() const {
    constexpr uint32_t kMost = kScaleMax * 0x01010101u;
    uint32_t all = rope[0].x ^ rope[1].x;
#pragma unroll
    for (int g = 0; g < kGroups; ++g) all ^= codes[g].x;
    return __any_sync(0xffffffffu, all == 0x12345678u || (__vcmpgtu4(scales.x, kMost) |
                                                          __vcmpgtu4(scales.y, kMost)) != 0);
  }
};

// Of a row's scales, that of a group.
__device__ inline uint32_t ScaleOf(uint2 scales, int group) {
  return ((group < 4 ? scales.x : scales.y) >> (8 * (group % 4))) & 0xff;
}

__device__ inline uint32_t TimesBf16x2(uint32_t a, uint32_t b) {
  uint32_t product;
  asm("mul.rn.bf16x2 %0, %1, %2;" : "=r"(product) : "r"(a), "r"(b));
  return product;
}

// The BF16 number 2^exponent in both halves; -126 to 127 (modulo 2^32).
__device__ inline uint32_t PowerBf16x2(uint32_t exponent) { return (exponent + 127) * 0x00800080u; }

// prmt: bytes of v by selector; 8 + i is byte i's sign in all bits.
__device__ inline uint32_t PickBytes(uint32_t v, uint32_t selector) {
  uint32_t out;
  asm("prmt.b32 %0, %1, 0, %2;" : "=r"(out) : "r"(v), "r"(selector));
  return out;
}

// Four e4m3 codes, first in the lowest byte, as BF16: sign, exponent and mantissa are put in their
// places, which makes the value times 2^-120 (subnormal codes included: BF16 with an exponent field
// of 0 is one too), and `power` makes up for that. Exact. A code is extended by its sign to 16 bits
// and shifted by a multiplication: the pipe of shifts and logic is the one that is short.
__device__ inline uint2 DecodeFour(uint32_t codes, uint32_t power) {
  const uint32_t a = (PickBytes(codes, 0x9180) * 16) & 0x87f087f0u;
  const uint32_t b = (PickBytes(codes, 0xb3a2) * 16) & 0x87f087f0u;
  return {TimesBf16x2(a, power), TimesBf16x2(b, power)};
}

// Sixteen codes times 2^(scale - 127): 32 bytes. kLarge: for any scale; else for scales up to
// kScaleMax, for which one power of two is enough.
template <bool kLarge>
__device__ inline void DecodeSixteen(uint4 codes, uint32_t scale, uint4& first, uint4& second) {
  const uint32_t power = PowerBf16x2((kLarge ? min(scale, kScaleMax) : scale) - 7);  // - 127 + 120
  const uint2 a = DecodeFour(codes.x, power), b = DecodeFour(codes.y, power);
  const uint2 c = DecodeFour(codes.z, power), d = DecodeFour(codes.w, power);
  first = {a.x, a.y, b.x, b.y};
  second = {c.x, c.y, d.x, d.y};
  if (kLarge) {
    const uint32_t rest = PowerBf16x2(max(scale, kScaleMax) - kScaleMax);
    for (uint4* v : {&first, &second}) {
      v->x = TimesBf16x2(v->x, rest), v->y = TimesBf16x2(v->y, rest);
      v->z = TimesBf16x2(v->z, rest), v->w = TimesBf16x2(v->w, rest);
    }
  }
}

__device__ inline void StoreShared16(uint32_t address, uint4 v) {
  asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(v.x), "r"(v.y),
               "r"(v.z), "r"(v.w)
               : "memory");
}

// Two blocks of rows between producers and those who multiply them.
struct RowRing {
  alignas(1024) uint8_t rows[2][kBlockBytes];
  uint64_t full[2], empty[2];

  // By one thread, before a __syncthreads; so many warps release a block.
  __device__ void Init(uint32_t users) {
    for (int i = 0; i < 2; ++i) {
      BarrierInit(SharedAddress(&full[i]), kProducers * kGroupThreads / 32);
      BarrierInit(SharedAddress(&empty[i]), users);
    }
  }
  // Of the n-th block, counted over all that this block of threads works on.
  __device__ uint32_t block(uint32_t n) const { return SharedAddress(rows[n % 2]); }
  __device__ void WaitFull(uint32_t n) { mma::WaitFull(full[n % 2], n / 2); }
  __device__ void WaitEmpty(uint32_t n) { mma::WaitEmpty(empty[n % 2], n / 2); }
  __device__ void Release(uint32_t n) { WarpArrive(SharedAddress(&empty[n % 2])); }
  // By each of the producers' warps, when its rows are written.
  __device__ void Close(uint32_t n) {
    FenceForProducts();
    WarpArrive(SharedAddress(&full[n % 2]));
  }
};

// The blocks that a block of threads works on: of items, and of each item's blocks, from a first
// one on by a step.
struct Work {
  int item, item_step, block, block_step;
};

// A producer's way through the work: every block's first or second half.
class Halves {
 public:
  __device__ Halves(const AttentionBatch& batch, const Work& work, int half)
      : batch_(batch), work_(work), item_(work.item), block_(work.block), half_(half) {
    Enter();
  }
  __device__ bool done() const { return item_ >= Items(batch_); }
  // Of row `row` of the half; nowhere after the last.
  __device__ Place Find(int row) const {
    if (done()) return {Place::kNowhere, 0};
    return rows_.Find(batch_, block_ * kBlockRows + half_ * kHalfRows + row);
  }
  __device__ StoredRow At(const Place& place) const { return rows_.At(batch_, place); }
  __device__ void Next() {
    if (done()) return;
    block_ += work_.block_step;
    if (block_ < rows_.blocks()) return;
    block_ = work_.block;
    item_ += work_.item_step;
    Enter();
  }

 private:
  __device__ void Enter() {
    if (!done()) rows_ = Rows(batch_, Item(batch_, item_).token);
  }
  const AttentionBatch& batch_;
  const Work work_;
  int item_, block_;
  const int half_;
  Rows rows_;
};

// A producer's part of a half: decoded to `to`, the first byte of its row in the first tile.
template <bool kLarge>
__device__ inline void DecodePart(const RowPart& part, uint32_t to, int lane, int row) {
  // Of this thread's 32 bytes of each tile, chunks swizzled.
  const uint32_t chunk0 = ((2 * lane) ^ (row % 8)) * 16, chunk1 = chunk0 ^ 16;
  const uint32_t rope_chunk = (lane ^ (row % 8)) * 16;
#pragma unroll
  for (int g = 0; g < kGroups; ++g) {
    uint4 low, high;
    DecodeSixteen<kLarge>(part.codes[g], ScaleOf(part.scales, g), low, high);
    StoreShared16(to + g * kTileBytes + chunk0, low);
    StoreShared16(to + g * kTileBytes + chunk1, high);
  }
  StoreShared16(to + kGroups * kTileBytes + rope_chunk, part.rope[0]);
  StoreShared16(to + kGroups * kTileBytes + (rope_chunk ^ 64), part.rope[1]);
}

// One of kProducers warpgroups. REQUIRES: there is work. kAhead: a half is asked for before the one
// before it is decoded, in 38 registers more; else after that.
template <bool kAhead>
__device__ inline void Produce(const AttentionBatch& batch, const Work& work, RowRing& ring,
                               int producer) {
  const int thread = threadIdx.x % kGroupThreads, lane = thread % 4, row = thread / 4;
  Halves halves(batch, work, producer);
  Place place = halves.Find(row);
  const auto load = [&](RowPart& part) {
    part.Load(halves.At(place), lane);
    halves.Next();
    place = halves.Find(row);
  };
  const auto decode = [&](uint32_t n, const RowPart& part, bool large) {
    const uint32_t to = ring.block(n) + (producer * kHalfRows + row) * 128;
    if (large) {
      DecodePart<true>(part, to, lane, row);
    } else {
      DecodePart<false>(part, to, lane, row);
    }
    ring.Close(n);
  };
  uint32_t block = 0;
  if (!kAhead) {
    do {
      RowPart part;
      load(part);
      ring.WaitEmpty(block);
      decode(block++, part, part.ArrivedLarge());
    } while (!halves.done());
    return;
  }
  RowPart even, odd;
  load(even);
  // The half of the n-th block is in `now`; whether it was the last.
  const auto bring = [&](uint32_t n, const RowPart& now, RowPart& after) {
    const bool last = halves.done(), large = now.ArrivedLarge();
    load(after);
    ring.WaitEmpty(n);
    decode(n, now, large);
    return last;
  };
  for (;; block += 2) {
    if (bring(block, even, odd)) return;
    if (bring(block + 1, odd, even)) return;
  }
}

}  // namespace cairn::kernels::cuda::attention

#endif  // CAIRN_KERNELS_CUDA_ATTENTION_ROWS_CUH_
