// quantise.h: activations rounded to what the FP8 products take: e4m3 codes and a scale for each
// row and 128 k. Spec sections 2.7, 2.8, 3.1.
//
// A group's scale is ScaleE8m0Fp8 of its largest magnitude, its codes are F32ToE4m3(x / scale)
// (kernels/cpu/formats.h), byte for byte. Scales are kept as F32 powers of two and column by
// column, as the products read them: scales[k / 128][stride], row r of it at r.
//
// Threads:   any; work is queued on the stream.
// Ownership: the caller's buffers, until the stream has passed.
// Errors:    INVALID_ARGUMENT: k no multiple of 128, a stride too short or no multiple of 4, scales
//            not aligned to 16 bytes.
// Cost:      one pass over memory: 2 bytes read, 1 written a value.
#ifndef CAIRN_KERNELS_CUDA_QUANTISE_H_
#define CAIRN_KERNELS_CUDA_QUANTISE_H_

#include <cstdint>

#include "kernels/cuda/device.h"

namespace cairn::kernels::cuda {

inline constexpr int64_t kQuantGroup = 128;

// Rows ready for products; on the device, aligned to 16 bytes. codes [rows, k].
struct QuantisedRows {
  uint8_t* codes = nullptr;
  float* scales = nullptr;  // [k / 128][scale_stride]
  int64_t rows = 0;
  int64_t k = 0;
  int64_t scale_stride = 0;  // at least rows, a multiple of 4
};

// The shortest stride for so many rows, and how many floats scales then takes.
constexpr int64_t ScaleStride(int64_t rows) { return (rows + 3) / 4 * 4; }
constexpr int64_t ScaleCount(int64_t rows, int64_t k) {
  return ScaleStride(rows) * (k / kQuantGroup);
}

// to[i] = x[from == nullptr ? i : from[i]]; x is BF16 [., k], `from` int32 [to.rows] on the device.
absl::Status QuantiseRows(Stream stream, const uint16_t* x, const int32_t* from,
                          const QuantisedRows& to);

// to[i] = BF16(silu(min(gate, limit)) * clamp(up, -limit, limit) * factors[i]), quantised, of the
// BF16 row gate_up[i] = gate [to.k], up [to.k]: kernels/cpu/vector_ops.h's SwiGlu to the bit.
// `factors` null: 1; else F32 [to.rows] on the device.
absl::Status QuantiseSwiGlu(Stream stream, const uint16_t* gate_up, const float* factors,
                            float limit, const QuantisedRows& to);

}  // namespace cairn::kernels::cuda

#endif  // CAIRN_KERNELS_CUDA_QUANTISE_H_
