// kv_writer.h: K = V rows from a projection to what is stored, in one pass: RMSNorm with a weight
// over 512 dims, rotation of the last 64, e4m3 in groups of 64. For window rows (a ring's slots)
// and for pooled rows of the compressors.
//
// The row is F32 from norm to rounding; its bytes are those of RowCodec kFp8Bf16 (kernels/cpu/
// kv_rows.h) for those values: 576 bytes of data (448 codes, 64 BF16), and apart from them 7 e8m0
// scales and a zero. The norm's sum is "by lanes" with 32 lanes (row_math.cuh).
//
// Pointers are the device's; x aligned to 16 bytes, data to 16, scales to 8.
//
// Threads: any. Errors: INVALID_ARGUMENT for shapes, naming the bound.
#ifndef CAIRN_KERNELS_CUDA_KV_WRITER_H_
#define CAIRN_KERNELS_CUDA_KV_WRITER_H_

#include <cstdint>

#include "kernels/cuda/device.h"

namespace cairn::kernels::cuda {

// Where rows lie: row r at data + 576 r and scales + 8 r.
struct KvPool {
  uint8_t* data = nullptr;
  uint8_t* scales = nullptr;
};

// Row i of x [count, 512] becomes row rows[i] of the pool; a negative number is a row that is not
// written. No two may be the same. weight [512] BF16; cos_sin [count, 64].
absl::Status WriteKvRows(Stream stream, const uint16_t* x, const uint16_t* weight,
                         const float* cos_sin, const int64_t* rows, int64_t count, float eps,
                         KvPool pool);
absl::Status WriteKvRows(Stream stream, const float* x, const uint16_t* weight,
                         const float* cos_sin, const int64_t* rows, int64_t count, float eps,
                         KvPool pool);

}  // namespace cairn::kernels::cuda

#endif  // CAIRN_KERNELS_CUDA_KV_WRITER_H_
