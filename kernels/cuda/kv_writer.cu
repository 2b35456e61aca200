#include "kernels/cuda/kv_writer.h"

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/row_math.cuh"

namespace cairn::kernels::cuda {
namespace {

constexpr int kDim = 512;
constexpr int kCodes = kDim - kRopeDim;
constexpr int kDataBytes = kCodes + 2 * kRopeDim;
constexpr int kScaleBytes = 8;
constexpr int kGroupLanes = 64 / 8;  // lanes that hold a group of 64
constexpr int kRowsOfBlock = 4;

// A warp a row. Lane l holds chunks l (groups 0 to 3) and l + 32 (groups 4 to 6, then rope dims).
template <typename In>
__global__ void __launch_bounds__(kLanes* kRowsOfBlock)
    WriteKvRowsKernel(const In* x, const uint16_t* weight, const float* cos_sin,
                      const int64_t* rows, int64_t count, float eps, KvPool pool) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kRowsOfBlock + threadIdx.y;
  LetNextStartOfFew();
  WaitForKernelsBefore();
  if (i >= count || rows[i] < 0) return;  // a whole warp
  const int lane = threadIdx.x;
  WarpRow<kDim> row;
  row.Load(x + i * kDim, lane);
  row.NormRotate(weight, eps, cos_sin + i * kRopeDim, lane);

  uint8_t* const data = pool.data + rows[i] * kDataBytes;
  uint64_t scales = 0;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int chunk = row.At(half, lane);
    const uint32_t byte = ScaleByteFp8(MaxOfLanes<kGroupLanes>(MaxMagnitude(row.v[half])));
    if (chunk < row.kRopeChunk) {
      *reinterpret_cast<uint2*>(data + 8 * chunk) = E4m3Codes(row.v[half], InverseOfScale(byte));
    } else {
      *reinterpret_cast<uint4*>(data + kCodes + 16 * (chunk - row.kRopeChunk)) =
          Pack8(row.v[half]);
    }
#pragma unroll
    for (int g = 0; g < 4; ++g) {
      const uint64_t of_group = __shfl_sync(kAllLanes, byte, g * kGroupLanes);
      if (4 * half + g < kCodes / 64) scales |= of_group << (8 * (4 * half + g));
    }
  }
  if (lane == 0) *reinterpret_cast<uint64_t*>(pool.scales + rows[i] * kScaleBytes) = scales;
}

template <typename In>
absl::Status Launch(Stream stream, const In* x, const uint16_t* weight, const float* cos_sin,
                    const int64_t* rows, int64_t count, float eps, KvPool pool) {
  CAIRN_RETURN_IF_ERROR(Require(count >= 0 && count <= (int64_t{1} << 30),
                                "WriteKvRows: count not in [0, 2^30]"));
  if (count == 0) return absl::OkStatus();
  const auto grid = static_cast<unsigned>(CeilDiv(count, int64_t{kRowsOfBlock}));
  return LaunchEarlyIfFew(stream, "WriteKvRows", {grid, dim3(kLanes, kRowsOfBlock)},
                          WriteKvRowsKernel<In>, x, weight, cos_sin, rows, count, eps, pool);
}

}  // namespace

absl::Status WriteKvRows(Stream stream, const uint16_t* x, const uint16_t* weight,
                         const float* cos_sin, const int64_t* rows, int64_t count, float eps,
                         KvPool pool) {
  return Launch(stream, x, weight, cos_sin, rows, count, eps, pool);
}

absl::Status WriteKvRows(Stream stream, const float* x, const uint16_t* weight,
                         const float* cos_sin, const int64_t* rows, int64_t count, float eps,
                         KvPool pool) {
  return Launch(stream, x, weight, cos_sin, rows, count, eps, pool);
}

}  // namespace cairn::kernels::cuda
