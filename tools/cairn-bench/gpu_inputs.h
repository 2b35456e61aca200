// gpu_inputs.h: made inputs in GPU memory, of any size: a random piece over and over.
//
// Threads: one. Ownership: the caller's. Errors: those of device.h.
#ifndef CAIRN_TOOLS_CAIRN_BENCH_GPU_INPUTS_H_
#define CAIRN_TOOLS_CAIRN_BENCH_GPU_INPUTS_H_

#include <cstdint>
#include <span>

#include "kernels/cpu/packed_matrix.h"
#include "kernels/cuda/device.h"

namespace cairn::bench {

absl::StatusOr<kernels::cuda::DeviceBuffer<uint8_t>> Repeated(std::span<const uint8_t> piece,
                                                              int64_t bytes);

// Values of a format with the spread that weights and activations have: equal chances for all codes
// would be mostly tiny numbers, and zeros would run faster than real data.
absl::StatusOr<kernels::cuda::DeviceBuffer<uint8_t>> RandomWeights(kernels::WeightFormat format,
                                                                   int64_t bytes);

}  // namespace cairn::bench

#endif  // CAIRN_TOOLS_CAIRN_BENCH_GPU_INPUTS_H_
