// norms.h: RMSNorm over rows, alone and with what comes next: rounding to FP8 for a linear,
// rotation of queries and keys; and the angles of positions.
//
// RmsNorm is x * (1 / sqrt(mean(x^2) + eps)) * weight in F32, rounded once to what is written. The
// sum is "by lanes" (row_math.cuh) with 32 lanes for rows of up to 1024 values, 128 up to 4096, 256
// above: a function of the row's length alone.
//
// Pointers are the device's, rows contiguous and aligned to 16 bytes. weight [n] BF16, or null for
// 1. Outputs may be the inputs.
//
// Threads: any. Errors: INVALID_ARGUMENT for shapes, naming the bound.
#ifndef CAIRN_KERNELS_CUDA_NORMS_H_
#define CAIRN_KERNELS_CUDA_NORMS_H_

#include <cstdint>

#include "kernels/cuda/device.h"

namespace cairn::kernels::cuda {

// x and out [rows, n]; n a multiple of 8, at most 8192.
absl::Status RmsNorm(Stream stream, const uint16_t* x, const uint16_t* weight, int64_t rows,
                     int64_t n, float eps, uint16_t* out);
absl::Status RmsNorm(Stream stream, const float* x, const uint16_t* weight, int64_t rows, int64_t n,
                     float eps, uint16_t* out);

// The same, and its (BF16) result once more as a linear's input: codes [rows, n] e4m3 and a scale
// for each row and 128 values, as kernels/cpu/formats.h has them. Scales are F32 powers of two,
// column by column: scales[n / 128][scale_stride], row r's at r. n a multiple of 128. out may be
// null.
absl::Status RmsNormQuantise(Stream stream, const uint16_t* x, const uint16_t* weight, int64_t rows,
                             int64_t n, float eps, uint16_t* out, uint8_t* codes, float* scales,
                             int64_t scale_stride);

// q [tokens, heads, 512]: each head normalised without weight, its last 64 dims rotated by cos_sin
// [tokens, 64].
absl::Status NormRotateHeads(Stream stream, const uint16_t* q, const float* cos_sin, int64_t tokens,
                             int64_t heads, float eps, uint16_t* out);

// Indexer keys: x [rows, 128] normalised with weight [128], the last 64 dims rotated by cos_sin
// [rows, 64].
absl::Status NormRotateKeys(Stream stream, const float* x, const uint16_t* weight,
                            const float* cos_sin, int64_t rows, float eps, float* out);

// cos_sin [count, 2 * pairs]: (cos, sin) of the F32 product position * freq, taken in double and
// rounded once (kernels/cpu/rope.h). A position is below 2^24, so that it is an F32.
absl::Status RopeAngles(Stream stream, const int32_t* positions, int64_t count, const float* freq,
                        int64_t pairs, float* cos_sin);

}  // namespace cairn::kernels::cuda

#endif  // CAIRN_KERNELS_CUDA_NORMS_H_
