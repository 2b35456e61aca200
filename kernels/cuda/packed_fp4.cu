#include <cuda_runtime.h>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/packed_fp4.h"

namespace cairn::kernels::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kOutputs = static_cast<int>(kFp4BlockOutputs);
constexpr int kRowBytes = static_cast<int>(kFp4BlockK) / 2;
constexpr int kGroupBytes = 16;
constexpr int kFurthest = 14;
constexpr int kLift = 6;

// Four values of two bytes, low nibble first: magnitudes a nibble each, and signs as bit 8 j.
struct Four {
  uint32_t magnitudes, signs;
};
__device__ Four Split(const uint8_t* bytes) {
  const uint32_t values = bytes[0] | static_cast<uint32_t>(bytes[1]) << 8;
  Four out = {values & 0x7777u, 0};
  for (int j = 0; j < 4; ++j) out.signs |= (values >> (4 * j + 3) & 1u) << (8 * j);
  return out;
}

__device__ bool AllZero(const uint8_t* group) {
  const uint4 v = *reinterpret_cast<const uint4*>(group);
  return ((v.x | v.y | v.z | v.w) & 0x77777777u) == 0;
}

// A block of threads for each block of W.
__global__ void __launch_bounds__(kThreads)
    PackKernel(const uint8_t* values, const uint8_t* value_scales, int64_t k, uint8_t* blocks,
               uint8_t* scales, int32_t* unfit) {
  __shared__ __align__(16) uint8_t rows[kOutputs * kRowBytes];
  __shared__ int largest;
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t first_row = static_cast<int64_t>(blockIdx.y) * kOutputs;
  const int64_t block = static_cast<int64_t>(blockIdx.y) * gridDim.x + blockIdx.x;
  if (thread == 0) largest = -1;
  for (int i = thread; i < kOutputs * kRowBytes / kGroupBytes; i += kThreads) {
    const int row = i / 4;
    reinterpret_cast<uint4*>(rows)[i] = *reinterpret_cast<const uint4*>(
        values + (first_row + row) * (k / 2) + blockIdx.x * kRowBytes + i % 4 * kGroupBytes);
  }
  __syncthreads();
  // Two threads have an output's four groups.
  const int row = thread / 2;
  int scale[2];
  for (int i = 0; i < 2; ++i) {
    const int group = thread % 2 * 2 + i;
    const bool zero = AllZero(rows + row * kRowBytes + group * kGroupBytes);
    scale[i] = zero ? -1 : value_scales[(first_row + row) * (k / 32) + blockIdx.x * 4 + group];
    atomicMax(&largest, scale[i]);
  }
  __syncthreads();
  uint32_t distances = 0;
  for (int i = 0; i < 2; ++i) {
    const int d = scale[i] < 0 ? 0 : largest - scale[i];
    if (d > kFurthest || (largest >= 0 && largest < kLift)) {
      atomicMin(unfit, static_cast<int32_t>(first_row) + row);
    }
    distances |= static_cast<uint32_t>(d & 15) << (4 * i);
  }
  uint8_t* const to = blocks + block * kFp4BlockBytes;
  to[4096 + thread] = static_cast<uint8_t>(distances);
  if (thread == 0) scales[block] = static_cast<uint8_t>(largest < kLift ? 127 : largest - kLift);
  for (int v = 0; v < 2; ++v) {
    uint32_t words[4];
    for (int i = 0; i < 4; ++i) {
      const int output = 16 * (thread / 32) + thread % 32 / 4 + 8 * (i % 2);
      const uint8_t* const from =
          rows + output * kRowBytes + (2 * v + i / 2) * kGroupBytes + thread % 4 * 2;
      const Four a = Split(from), b = Split(from + 8);
      words[i] = a.magnitudes | b.magnitudes << 16 | a.signs << 7 | b.signs << 3;
    }
    reinterpret_cast<uint4*>(to)[v * kThreads + thread] = {words[0], words[1], words[2], words[3]};
  }
}

}  // namespace

absl::Status PackFp4(Stream stream, const uint8_t* values, const uint8_t* value_scales, int64_t n,
                     int64_t k, uint8_t* blocks, uint8_t* scales, int32_t* unfit) {
  if (n <= 0 || k <= 0 || n % kFp4BlockOutputs != 0 || k % kFp4BlockK != 0 ||
      n / kFp4BlockOutputs > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat("FP4 weights of ", n, " outputs, ", k,
                     " inputs: outputs must be a multiple of 64 below 4194304, inputs of 128"));
  }
  CAIRN_RETURN_IF_ERROR(
      CudaStatus(cudaMemsetAsync(unfit, 0x7f, sizeof(int32_t), stream), "PackFp4"));
  const dim3 grid(static_cast<unsigned>(k / kFp4BlockK),
                  static_cast<unsigned>(n / kFp4BlockOutputs));
  PackKernel<<<grid, kThreads, 0, stream>>>(values, value_scales, k, blocks, scales, unfit);
  return LaunchStatus("PackFp4");
}

absl::Status Fp4Fits(int32_t unfit) {
  if (unfit == kFp4AllFit) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("FP4 weights: the scales of row ", unfit,
                   " and of its block of 64 x 128 are "
                   "further apart than 2^14 (or below 2^-121); the products cannot take them"));
}

}  // namespace cairn::kernels::cuda
