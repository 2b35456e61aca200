// linear.h: y = W x on the tensor cores for many x at once (spec sections 2.7, 2.8, 3.1).
//
// FP8 and FP4 weights take quantised rows (quantise.h), BF16 weights take BF16 rows. An output is
//   sum = 0; for each block of k, ascending: sum = fma(part, scale, sum)
// where a block is 128 k and scale = the row's scale times W's (FP8, FP4), or 64 k and scale = 1
// (BF16), and part is what the tensor cores make of the block alone, in their own order. Then one
// rounding to BF16, or none. Which kernel runs depends on the shape; the bits do not: an output is
// a function of its own row of x and of W alone.
//
// FP8 parts keep about 14 bits of what the tensor cores align: within about 1e-3 of the exact
// product of the decoded operands (norm of the error over the norm).
//
// Threads:   any; work is queued on the stream. W may be read before kernels that were queued
// earlier
//            have ended: it must have been there before (x and y may come from them).
// Ownership: the caller's buffers, until the stream has passed.
// Errors:    INVALID_ARGUMENT: a shape or address that the kernels do not take, named.
#ifndef CAIRN_KERNELS_CUDA_LINEAR_H_
#define CAIRN_KERNELS_CUDA_LINEAR_H_

#include <cstdint>

#include "kernels/cpu/packed_matrix.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/quantise.h"

namespace cairn::kernels::cuda {

// Weights in device memory; `count` matrices [n, k] (experts), one after the other. n is a multiple
// of 8; of 128 where there are several.
struct DeviceMatrix {
  WeightFormat format = WeightFormat::kFp8;
  int64_t n = 0;
  int64_t k = 0;
  int64_t count = 1;
  // kFp8, kBf16: row-major, as in RawMatrix; aligned to 16 bytes. kFp4: packed_fp4.h's blocks.
  const uint8_t* values = nullptr;
  // e8m0. kFp8: [ceil(count n / 128), k / 128]. kFp4: of the blocks.
  const uint8_t* scales = nullptr;
};

// BF16 rows [rows, groups * w.k], `stride` values apart (a multiple of 8). Of several groups, the
// g-th n / groups outputs of W take the g-th w.k columns (the output projection of spec 2.4).
struct Bf16Rows {
  const uint16_t* values = nullptr;
  int64_t rows = 0;
  int64_t stride = 0;
  int64_t groups = 1;
};

// y [rows, n], `stride` values apart (a multiple of 8): BF16 or F32, aligned to 16 bytes.
struct LinearOutput {
  LinearOutput(uint16_t* y, int64_t stride_of_y) : data(y), stride(stride_of_y), f32(false) {}
  LinearOutput(float* y, int64_t stride_of_y) : data(y), stride(stride_of_y), f32(true) {}
  void* data;
  int64_t stride;
  bool f32;
};

absl::Status Linear(Stream stream, const DeviceMatrix& w, const QuantisedRows& x,
                    const LinearOutput& y);
absl::Status Linear(Stream stream, const DeviceMatrix& w, const Bf16Rows& x, const LinearOutput& y);

// Rows of x that go to different matrices (a token's experts), sorted by matrix: those of matrix e
// are [offsets[e], offsets[e + 1]). How many each has is known on the device only.
struct ExpertRows {
  const int32_t* offsets = nullptr;  // on the device, [experts + 1]; from 0 to at most rows
  int64_t experts = 0;               // at most 1024
  int64_t rows = 0;
  uint8_t* scratch = nullptr;  // on the device, ExpertScratchBytes, aligned to 16 bytes
};
int64_t ExpertScratchBytes(int64_t rows, int64_t experts);

// Cuts them up for the products; once, when offsets are there, for all that follow on the stream.
absl::Status CutExpertRows(Stream stream, const ExpertRows& rows);

// y[i] = W[e] x[i] for each row i of each matrix e; other rows of y are left alone. w.count is
// rows.experts, x.rows is rows.rows. The bits are Linear's.
absl::Status ExpertLinear(Stream stream, const DeviceMatrix& w, const QuantisedRows& x,
                          const ExpertRows& rows, const LinearOutput& y);

}  // namespace cairn::kernels::cuda

#endif  // CAIRN_KERNELS_CUDA_LINEAR_H_
