// attention_rows.cuh: a token's list as rows in memory, and a stored row's way into shared memory
// as BF16: the producers' part of attention.h's kernels.
//
// 128 threads bring blocks of 64 rows, in halves of 32. Of a row, four lanes bring everything: lane
// k of four the 16 bytes k of each group of 64 codes, and 16-byte chunks k and k + 4 of the BF16
// part. What the next half needs is asked for as soon as this half's registers are free, and the
// index it is found by a half before that, so that memory works while codes are decoded.
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
  const uint8_t* data = nullptr;  // null: after the list's end; reads as zeros
  const uint8_t* scales = nullptr;
};

// Where a row of a list is: its number in its pool, in two parts of which the second may be on its
// way from memory.
struct Place {
  enum Kind { kNowhere, kNear, kFar } kind = kNowhere;
  int32_t index = 0;
  int64_t base = 0;
};

// Row j of the list of `token`.
__device__ inline Place FindPlace(const AttentionBatch& batch, int token, const AttentionList& list,
                                  int j) {
  if (j >= ListLength(list)) return {};
  if (j < list.window_count) {
    const int slot = list.window_first + j;
    return {Place::kNear, batch.ring > 0 && slot >= batch.ring ? slot - batch.ring : slot,
            list.window_base};
  }
  j -= list.window_count;
  if (batch.indices == nullptr) return {Place::kFar, j, list.compressed_base};
  int32_t index;  // volatile: asked for here
  asm volatile("ld.global.nc.s32 %0, [%1];"
               : "=r"(index)
               : "l"(batch.indices + token * batch.index_stride + j));
  return {Place::kFar, index, list.compressed_base};
}

__device__ inline StoredRow RowAt(const AttentionBatch& batch, const Place& place) {
  if (place.kind == Place::kNowhere) return {};
  const RowPool& pool = place.kind == Place::kNear ? batch.window : batch.compressed;
  const int64_t row = place.base + place.index;
  return {pool.data + row * kRowDataBytes, pool.scales + row * kRowScaleBytes};
}

// Of a row, what one of its four lanes brings. Loads are volatile, so that they stay where they are
// written: before the work that hides them.
struct RowPart {
  uint4 codes[kGroups];
  uint4 rope[2];
  uint2 scales;

  __device__ static uint2 LoadScales(const StoredRow& row) {
    uint2 v;
    asm volatile(
        "{\n .reg .pred p;\n setp.ne.u64 p, %2, 0;\n mov.u32 %0, 0;\n mov.u32 %1, 0;\n"
        " @p ld.global.nc.v2.u32 {%0, %1}, [%2];\n}"
        : "=&r"(v.x), "=&r"(v.y)
        : "l"(row.scales));
    return v;
  }
  __device__ void LoadCodes(const StoredRow& row, int lane, int group) {
    codes[group] = Load16(row, 64 * group + 16 * lane);
  }
  __device__ void LoadRope(const StoredRow& row, int lane) {
    rope[0] = Load16(row, 64 * kGroups + 16 * lane);
    rope[1] = Load16(row, 64 * kGroups + 64 + 16 * lane);
  }
  __device__ static uint4 Load16(const StoredRow& row, int offset) {
    uint4 v;
    asm volatile(
        "{\n .reg .pred p;\n setp.ne.u64 p, %4, 0;\n"
        " mov.u32 %0, 0;\n mov.u32 %1, 0;\n mov.u32 %2, 0;\n mov.u32 %3, 0;\n"
        " @p ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%5];\n}"
        : "=&r"(v.x), "=&r"(v.y), "=&r"(v.z), "=&r"(v.w)
        : "l"(row.data), "l"(row.data + offset));
    return v;
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

// Four e4m3 codes, first in the lowest byte, as BF16: sign, exponent and mantissa are put in their
// places, which makes the value times 2^-120 (subnormal codes included: BF16 with an exponent field
// of 0 is one too), and `power` makes up for that. Exact.
__device__ inline uint2 DecodeFour(uint32_t codes, uint32_t power) {
  const uint32_t upper = (codes & 0x80808080u) | ((codes >> 4) & 0x07070707u);
  const uint32_t lower = (codes << 4) & 0xf0f0f0f0u;
  return {TimesBf16x2(__byte_perm(lower, upper, 0x5140), power),
          TimesBf16x2(__byte_perm(lower, upper, 0x7362), power)};
}

// Sixteen codes times 2^(scale - 127): 32 bytes. kLarge: for any scale; else for scales up to
// kScaleMax, groups below 57344, for which one power of two is enough.
inline constexpr uint32_t kScaleMax = 134;
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

// Whether any row of the warp's has such a scale.
__device__ inline bool AnyLarge(uint2 scales) {
  constexpr uint32_t kMost = kScaleMax * 0x01010101u;
  return __any_sync(0xffffffffu, (__vcmpgtu4(scales.x, kMost) | __vcmpgtu4(scales.y, kMost)) != 0);
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

  // By one thread, before a __syncthreads. `users`: warps that release a block.
  __device__ void Init(uint32_t users) {
    for (int i = 0; i < 2; ++i) {
      BarrierInit(SharedAddress(&full[i]), kGroupThreads);
      BarrierInit(SharedAddress(&empty[i]), users);
    }
  }
  // Of the n-th block, counted over all that this block of threads works on.
  __device__ uint32_t block(uint32_t n) const { return SharedAddress(rows[n % 2]); }
  __device__ void WaitFull(uint32_t n) { mma::WaitFull(full[n % 2], n / 2); }
  __device__ void WaitEmpty(uint32_t n) { mma::WaitEmpty(empty[n % 2], n / 2); }
  __device__ void Release(uint32_t n) { WarpArrive(SharedAddress(&empty[n % 2])); }
};

// The halves of blocks that a block of threads works on: of items, and of each item's blocks, from
// a first one on by a step.
class Halves {
 public:
  __device__ Halves(const AttentionBatch& batch, int item, int item_step, int block, int block_step)
      : batch_(batch),
        item_step_(item_step),
        first_block_(block),
        block_step_(block_step),
        item_(item),
        block_(block) {}
  __device__ bool done() const { return item_ >= Items(batch_); }
  // Of row `row` of a half block; then goes on to the next half. After the last, nowhere.
  __device__ Place Take(int row) {
    if (done()) return {};
    const int token = Item(batch_, item_).token;
    const AttentionList list = batch_.lists[token];
    const Place place =
        FindPlace(batch_, token, list, block_ * kBlockRows + half_ * kHalfRows + row);
    half_ ^= 1;
    if (half_ == 1) return place;
    block_ += block_step_;
    if (block_ < BlocksOf(list)) return place;
    block_ = first_block_;
    item_ += item_step_;
    return place;
  }

 private:
  const AttentionBatch& batch_;
  const int item_step_, first_block_, block_step_;
  int item_, block_, half_ = 0;
};

// A producer's part of a half: decodes what `part` holds to `to`, the first byte of its row in the
// first tile, and asks for the same part of `next`.
template <bool kLarge>
__device__ inline void DecodePart(RowPart& part, const StoredRow& next, uint32_t to, int lane,
                                  int row) {
  // Of this thread's 32 bytes of each tile, chunks swizzled.
  const uint32_t chunk0 = ((2 * lane) ^ (row % 8)) * 16, chunk1 = chunk0 ^ 16;
  const uint32_t rope_chunk = (lane ^ (row % 8)) * 16;
#pragma unroll
  for (int g = 0; g < kGroups; ++g) {
    uint4 low, high;
    DecodeSixteen<kLarge>(part.codes[g], ScaleOf(part.scales, g), low, high);
    part.LoadCodes(next, lane, g);
    __syncwarp();  // what is asked for is asked for now, not at the end of the loop
    StoreShared16(to + g * kTileBytes + chunk0, low);
    StoreShared16(to + g * kTileBytes + chunk1, high);
  }
  StoreShared16(to + kGroups * kTileBytes + rope_chunk, part.rope[0]);
  StoreShared16(to + kGroups * kTileBytes + (rope_chunk ^ 64), part.rope[1]);
  part.LoadRope(next, lane);
}

// One warpgroup. REQUIRES: !halves.done().
__device__ inline void Produce(const AttentionBatch& batch, Halves halves, RowRing& ring) {
  const int thread = threadIdx.x % kGroupThreads, lane = thread % 4, row = thread / 4;
  const StoredRow first = RowAt(batch, halves.Take(row));
  Place place = halves.Take(row);
  RowPart part;
  part.scales = RowPart::LoadScales(first);
#pragma unroll
  for (int g = 0; g < kGroups; ++g) part.LoadCodes(first, lane, g);
  part.LoadRope(first, lane);
  for (uint32_t n = 0;; ++n) {  // halves
    const StoredRow next = RowAt(batch, place);
    const bool last = n % 2 == 1 && halves.done();
    place = halves.Take(row);
    const uint2 scales = RowPart::LoadScales(next);
    const uint32_t to = ring.block(n / 2) + (n % 2 * kHalfRows + row) * 128;
    if (n % 2 == 0) ring.WaitEmpty(n / 2);
    if (AnyLarge(part.scales)) {
      DecodePart<true>(part, next, to, lane, row);
    } else {
      DecodePart<false>(part, next, to, lane, row);
    }
    part.scales = scales;
    if (n % 2 == 0) continue;
    FenceForProducts();
    BarrierArrive(SharedAddress(&ring.full[n / 2 % 2]));
    if (last) return;
  }
}

}  // namespace cairn::kernels::cuda::attention

#endif  // CAIRN_KERNELS_CUDA_ATTENTION_ROWS_CUH_
