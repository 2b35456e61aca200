// indexer_query.cuh: a token's queries as indexer_prepare.cu leaves them for indexer_score.cu, and
// the powers of two that both move codes by.
//
// Device code only.
#ifndef CAIRN_KERNELS_CUDA_INDEXER_QUERY_CUH_
#define CAIRN_KERNELS_CUDA_INDEXER_QUERY_CUH_

#include <cstdint>

namespace cairn::kernels::cuda {

// What is copied to shared memory as it is.
//
// matrix: head h is a row of 128 e4m3 codes in a tile for wgmma (K-major, 128-byte swizzle: the
// 16-byte piece p of row h lies in place p ^ (h % 8)). Its 128 columns are in the order in which a
// thread unpacks a key: column 32 s + 16 b + 4 c + i is dim 32 c + 8 s + 4 b + i.
//
// weights: of the heads, times (128 * 64)^-0.5, the head's power of two, 2^-12 for the two matrices
// of codes, and 0.5 because the scorer has twice relu; head 8 j + 2 c + e at 16 (j / 2) + 4 c + 2
// (j % 2) + e, so that a thread's are four vectors.
struct alignas(16) IndexQueryTile {
  uint8_t matrix[64 * 128];
  float weights[64];
  int32_t wide;  // whether a head is wide, so that `matrix` does not hold it
  int32_t unused[3];
};

struct PreparedIndexQuery {
  IndexQueryTile tile;
  // The same exactly: rows as stored keys are, and weights times (128 * 64)^-0.5.
  uint8_t data[64 * 64];
  uint8_t scales[64 * 4];
  float weights[64];
};

__device__ inline int IndexMatrixByte(int head, int column) {
  return head * 128 + ((column / 16) ^ (head % 8)) * 16 + column % 16;
}

__device__ inline int IndexWeightPlace(int head) {
  const int j = head / 8;
  return 16 * (j / 2) + 4 * (head % 8 / 2) + 2 * (j % 2) + head % 2;
}

// Codes of a group can be brought to a scale that is up to so many powers of two larger.
constexpr int kIndexShiftMax = 14;

// The e4m3 codes of magnitudes 0, .5, 1, 1.5, 2, 3, 4, 6 times 2^(6 - shift), low byte first: exact
// for shift <= kIndexShiftMax. Beyond it they are not; only zeros may be looked up there.
__device__ inline uint2 IndexMagnitudes(int shift) {
  uint32_t words[2] = {0, 0};
  if (shift <= kIndexShiftMax) {
    for (int code = 1; code < 8; ++code) {
      // The magnitude in quarters of 2^(exponent): 4 for 1, 6 for 1.5.
      const int exponent = code == 1 ? -1 : code / 2 - 1;
      const int mantissa = code > 1 && code % 2 == 1 ? 4 : 0;
      const int biased = exponent + 6 - shift + 7;
      const int e4m3 = biased > 0 ? biased * 8 + mantissa : (8 + mantissa) >> (1 - biased);
      words[code / 4] |= static_cast<uint32_t>(e4m3) << (code % 4 * 8);
    }
  }
  return make_uint2(words[0], words[1]);
}

// The value of an e8m0 byte.
__device__ inline float IndexScale(uint32_t byte) {
  return __uint_as_float(byte == 0 ? 0x00400000u : byte << 23);
}

}  // namespace cairn::kernels::cuda

#endif  // CAIRN_KERNELS_CUDA_INDEXER_QUERY_CUH_
