// indexer.h: the lightning indexer of CSA layers on the GPU: its queries and keys made ready, and
// the scores of rows. Spec section 2.6; top_k.h chooses among the scores.
//
//   score(p, j) = sum over the 64 heads h of w_h * relu(q_h . k_j), 128 dims
//
// Queries and keys are e2m1 codes with a power of two for each group of 32 dims. The codes of a row
// brought to one power of two are exact e4m3 numbers, unless one of its groups lies 2^15 or more
// below another (a "wide" row), so the products are FP8 tensor core ones of one matrix of codes
// each, and the two powers of two are multiplied in afterwards. A wide row, or a token with a wide
// head, is scored in F32 instead, in the CPU's order.
//
// Order of sums: a product is the tensor core's over 4 times 32 dims, which keeps about 14 bits of
// the largest term; then, of the weighted products, those of heads {8i + 2c, 8i + 2c + 1}, i
// ascending, by fma for each of c = 0..3, and (c0 + c1) + (c2 + c3); last the key's power of two.
// A score depends on its query and its row alone: not on the batch, the group or the row's place.
//
// Threads:   any; nothing waits for the host.
// Ownership: all pointers are the caller's device memory.
// Units:     rows of 68 bytes (64 of codes, 4 of scales, apart), as kernels/cpu/kv_rows.h's kFp4.
// Errors:    INVALID_ARGUMENT for a shape out of bounds; else what the launch says.
#ifndef CAIRN_KERNELS_CUDA_INDEXER_H_
#define CAIRN_KERNELS_CUDA_INDEXER_H_

#include <cstdint>

#include "kernels/cuda/device.h"
#include "store/base/status.h"

namespace cairn::kernels::cuda {

inline constexpr int64_t kIndexHeads = 64;
inline constexpr int64_t kIndexDim = 128;
inline constexpr int64_t kIndexRopeDim = 64;
inline constexpr int64_t kIndexRowDataBytes = kIndexDim / 2;
inline constexpr int64_t kIndexRowScaleBytes = kIndexDim / 32;
// Tokens that share a group's keys while those are unpacked.
inline constexpr int64_t kIndexGroupTokensMax = 16;

// Values that come as F32 or as BF16.
struct IndexValues {
  IndexValues(const float* values) : f32(values) {}
  IndexValues(const uint16_t* values) : bf16(values) {}
  const float* f32 = nullptr;
  const uint16_t* bf16 = nullptr;
};

struct IndexQueries {
  int64_t tokens;
  IndexValues q;         // [tokens, 64, 128], from wq_b
  IndexValues weights;   // [tokens, 64], from weights_proj, not yet times (128 * 64)^-0.5
  const float* cos_sin;  // [tokens, 64]: (cos, sin) a pair, of each token's position
};

// What ScoreIndexRows reads of a token; opaque, aligned to 16 bytes.
int64_t PreparedIndexQueryBytes();

// Rotates the last 64 dims, transforms (Hadamard) and rounds to FP4 as the CPU does, to the bit,
// and writes [tokens] prepared queries. REQUIRES: q and weights of the same type.
absl::Status PrepareIndexQueries(const IndexQueries& queries, void* prepared, Stream stream);

// Where a key is stored: 64 bytes of codes and 4 of scales.
struct IndexKeySlot {
  uint8_t* data;
  uint8_t* scales;
};

// keys [rows, 128], pooled, normalised and rotated: transforms each and writes it to its slot, byte
// for byte what Hadamard and RowCodec kFp4 of the CPU give. `slots` is [rows] on the device.
absl::Status WriteIndexKeys(IndexValues keys, int64_t rows, const IndexKeySlot* slots,
                            Stream stream);

// Consecutive tokens that read the same keys.
struct IndexGroup {
  const uint8_t* data;    // row j at data + 64 j, aligned to 16 bytes
  const uint8_t* scales;  // row j at scales + 4 j, aligned to 4 bytes
  int32_t first = 0;      // token
  int32_t tokens = 0;     // at most IndexScoring::group_tokens_max
  int32_t rows = 0;       // the most that any of its tokens sees; 0: nothing is scored
};

struct IndexScoring {
  const void* prepared;      // of all tokens
  const IndexGroup* groups;  // [group_count] on the device
  int64_t group_count;
  int64_t group_tokens_max;  // 1..kIndexGroupTokensMax
  const int32_t* counts;  // [tokens] on the device: rows that the token sees, at most its group's
  float* scores;          // token t's row j at scores + t * stride + j, for j < counts[t]
  int64_t stride;
};

absl::Status ScoreIndexRows(const IndexScoring& scoring, Stream stream);

}  // namespace cairn::kernels::cuda

#endif  // CAIRN_KERNELS_CUDA_INDEXER_H_
