// packed_fp4.h: FP4 weights in the order the products take them: still 4 bits a value, so that
// memory is read no more than the checkpoint's.
//
// W [n, k] is cut into blocks of 64 outputs x 128 k, [n / 64][k / 128]. A block has one scale: the
// largest s of its groups of 32, less 6. Its values are decoded to e4m3 as value * 2^(6 - d), d = s
// - the group's scale: exact for d up to 14 (all e2m1 values are halves, e4m3 goes down to 2^-9 and
// up to 448). A group of zeros has any d. A block's bytes:
//   4096  for v = 0, 1, thread t of 128, i = 0..3, a word: k block of 32 kc = 2 v + i / 2, output
//         16 (t / 32) + t % 32 / 4 + 8 (i % 2); with c = t % 4, values a_j at 32 kc + 4 c + j and
//         b_j 16 further. Magnitudes: a_j in nibble j, b_j in nibble 4 + j; signs: of a_j the top
//         bit of nibble 2 j + 1, of b_j of nibble 2 j. So two lookups of four values and two masks
//         decode a word to what a thread gives to wgmma.
//   128   for each output, d of its four groups, a nibble each, lowest first
//
// Threads:   any; work is queued on the stream.
// Ownership: the caller's buffers, until the stream has passed.
// Errors:    INVALID_ARGUMENT: n no multiple of 64 or k of 128. A block whose scales are further
//            apart than that, or below 2^-121, cannot be packed: `unfit` tells.
#ifndef CAIRN_KERNELS_CUDA_PACKED_FP4_H_
#define CAIRN_KERNELS_CUDA_PACKED_FP4_H_

#include <cstdint>

#include "kernels/cuda/device.h"

namespace cairn::kernels::cuda {

inline constexpr int64_t kFp4BlockOutputs = 64;
inline constexpr int64_t kFp4BlockK = 128;
inline constexpr int64_t kFp4BlockBytes = 4096 + 128;
inline constexpr int32_t kFp4AllFit = 0x7f7f7f7f;

constexpr int64_t Fp4Blocks(int64_t n, int64_t k) {
  return n / kFp4BlockOutputs * (k / kFp4BlockK);
}

// From the checkpoint's form (RawMatrix's, values aligned to 16 bytes) to blocks [Fp4Blocks *
// kFp4BlockBytes], aligned to 16 bytes, and scales [Fp4Blocks]. *unfit becomes the first row that
// cannot be packed, or kFp4AllFit; read it when the stream has passed, for Fp4Fits.
absl::Status PackFp4(Stream stream, const uint8_t* values, const uint8_t* value_scales, int64_t n,
                     int64_t k, uint8_t* blocks, uint8_t* scales, int32_t* unfit);

// INVALID_ARGUMENT naming the row, unless all fit.
absl::Status Fp4Fits(int32_t unfit);

}  // namespace cairn::kernels::cuda

#endif  // CAIRN_KERNELS_CUDA_PACKED_FP4_H_
