// attention.h: window and compressed rows in one softmax with a sink, for any tokens of any
// sequences, decoding and prefilling alike. K = V rows are read as they are stored (584 bytes,
// kernels/cpu/kv_rows.h kFp8Bf16), spec sections 2.4 and 3.2. On the CPU: kernels/cpu/attention.h.
//
// A token's list: its window, oldest first, then its compressed rows in the order given.
//   s[j]  = q . row[j]                                 F32, k ascending by 16 (tensor cores)
//   out   = sum_j p[j] row[j] / (sum_j p[j] + exp(sink - m / sqrt(512)))
// Order: the list in blocks of 64. Block b: m = max(m, max of its s), a = exp2((m before - m) c),
// c = log2(e) / sqrt(512); p[j] = exp2(s[j] c - m c); sum = sum a + those of the block, kept in
// four parts by j / 2 mod 4, joined at the end as (0+1) + (2+3); output = output a + the block's
// BF16(p) row, j ascending by 16 (tensor cores). So a token's bits depend on its query and its
// list; not on the others of the launch, nor on how many blocks of threads shared the work.
// With angles, the last 64 dims are turned back by them (rope.h) before the one rounding to BF16.
//
// Few tokens would leave most of the GPU idle, one block of threads each: with scratch memory, a
// token's list is then shared by many, for scores, and its dims, for the outputs. Same bits.
//
// A row that is read twice is read from L2. Codes 0x7f and 0xff (NaN, which no writer makes) read
// as
// +-480. An empty list gives zeros.
//
// Threads:   any. Ownership: all pointers are the caller's, on the device, alive until the stream
//            has passed. Per-token data is read by the kernel, so a captured graph sees new values.
// Units:     rows, but where it says bytes.
// Errors:    INVALID_ARGUMENT: a shape or alignment, named. Counts and rows of a token are not
//            checked (they are on the device).
#ifndef CAIRN_KERNELS_CUDA_ATTENTION_H_
#define CAIRN_KERNELS_CUDA_ATTENTION_H_

#include <cstdint>

#include "kernels/cuda/device.h"

namespace cairn::kernels::cuda {

inline constexpr int64_t kAttentionDim = 512;
inline constexpr int64_t kAttentionRope = 64;

// Rows of 576 bytes at `data`, of 8 bytes at `scales`: whole pages, or one array.
struct RowPool {
  const uint8_t* data = nullptr;    // aligned to 16
  const uint8_t* scales = nullptr;  // aligned to 8
};

// What one token attends to.
struct AttentionList {
  int64_t window_base = 0;      // row of the window pool where the ring (or plain run) begins
  int32_t window_first = 0;     // the oldest row, after the base; < ring
  int32_t window_count = 0;     // <= ring
  int64_t compressed_base = 0;  // row of the compressed pool, added to each index
  int32_t compressed_count = 0;
};

struct AttentionBatch {
  int64_t tokens = 0;
  int64_t heads = 0;            // a multiple of 64
  const uint16_t* q = nullptr;  // [tokens, heads, 512] BF16, normalised and rotated
  RowPool window = {};
  RowPool compressed = {};  // null: no token has any
  // Rows of a ring: window row j is base + (first + j) mod ring. 0: base + first + j.
  int32_t ring = 0;
  const AttentionList* lists = nullptr;  // [tokens]
  // [tokens, index_stride]: compressed row j is base + indices[token][j]. Null: base + j.
  const int32_t* indices = nullptr;
  int64_t index_stride = 0;
  const float* sink = nullptr;    // [heads]
  const float* angles = nullptr;  // [tokens, 64] (cos, sin) pairs, or null: not turned back
  uint16_t* out = nullptr;        // [tokens, heads, 512] BF16
  // For few tokens: AttentionScratchBytes(tokens, heads, rows_max) bytes aligned to 16, or null.
  void* scratch = nullptr;
  int64_t rows_max = 0;  // no list is longer; without scratch not looked at
};

// What sharing a list takes; 0 where there are enough tokens without.
// REQUIRES: DevicePresent().
int64_t AttentionScratchBytes(int64_t tokens, int64_t heads, int64_t rows_max);

// Launches; 0 tokens is OK and nothing.
absl::Status Attend(const AttentionBatch& batch, Stream stream);

}  // namespace cairn::kernels::cuda

#endif  // CAIRN_KERNELS_CUDA_ATTENTION_H_
