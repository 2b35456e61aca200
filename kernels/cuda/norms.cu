#include "kernels/cuda/norms.h"

#include <algorithm>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/row_math.cuh"

namespace cairn::kernels::cuda {
namespace {

constexpr int kChunksMax = 4;  // of eight values a thread: what it holds in registers
constexpr int kRowsOfWarps = 4;  // rows a block where a warp has a row
constexpr int64_t kRowsMax = int64_t{1} << 30;

struct NormOutput {
  uint16_t* out;
  uint8_t* codes = nullptr;
  float* scales = nullptr;
  int64_t scale_stride = 0;
};

// Eight values of a row as they lie in memory.
template <typename In>
struct Chunk;
template <>
struct Chunk<uint16_t> {
  uint4 v;
  __device__ void Get(float (&out)[8]) const { Unpack8(v, out); }
};
template <>
struct Chunk<float> {
  float4 v[2];
  __device__ void Get(float (&out)[8]) const {
    out[0] = v[0].x, out[1] = v[0].y, out[2] = v[0].z, out[3] = v[0].w;
    out[4] = v[1].x, out[5] = v[1].y, out[6] = v[1].z, out[7] = v[1].w;
  }
};

// What a thread has of a row: chunks threadIdx.x, threadIdx.x + kThreads, ...
template <typename In, int kThreads>
struct ThreadChunks {
  Chunk<In> chunk[kChunksMax];

  __device__ static int At(int i) { return static_cast<int>(threadIdx.x) + i * kThreads; }
  __device__ void Load(const In* row, int chunks) {
#pragma unroll
    for (int i = 0; i < kChunksMax; ++i) {
      if (At(i) < chunks) {
        chunk[i] = reinterpret_cast<const Chunk<In>*>(row)[At(i)];
      } else {
        chunk[i] = {};
      }
    }
  }
};

// A row for kWarps warps at a time, the next one on its way meanwhile: one pass over memory.
template <typename In, int kWarps, bool kQuantise>
__global__ void __launch_bounds__(kWarps == 1 ? kLanes * kRowsOfWarps : kLanes* kWarps)
    NormRowsKernel(const In* x, const uint16_t* weight, int64_t rows, int n, float eps,
                   NormOutput to) {
  constexpr int kThreads = kLanes * kWarps;
  __shared__ float of_warp[2][kWarps];  // of rows in turn
  LetNextStartOfFew();
  const int chunks = n / 8;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.y;
  int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  if (row >= rows) return;  // a whole warp; with more warps a row there is one row a block
  ThreadChunks<In, kThreads> next;
  next.Load(x + row * n, chunks);
  ThreadChunks<uint16_t, kThreads> factors;
  if (weight != nullptr) factors.Load(weight, chunks);
  for (int turn = 0; row < rows; row += stride, turn ^= 1) {
    float v[kChunksMax][8];
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < kChunksMax; ++i) {
      next.chunk[i].Get(v[i]);
      AddSquares(v[i], sum);
    }
    if (row + stride < rows) next.Load(x + (row + stride) * n, chunks);
    sum = SumOfLanes(sum);
    if constexpr (kWarps > 1) {
      if (threadIdx.x % kLanes == 0) of_warp[turn][threadIdx.x / kLanes] = sum;
      __syncthreads();
      sum = of_warp[turn][0];
#pragma unroll
      for (int w = 1; w < kWarps; ++w) sum += of_warp[turn][w];
    }
    const float scale = NormScale(sum, n, eps);
#pragma unroll
    for (int i = 0; i < kChunksMax; ++i) {
      if (i * kThreads >= chunks) break;  // for all lanes alike: they meet in MaxOfLanes
      const int chunk = next.At(i);
      const bool has = chunk < chunks;
      ScaleBy(scale, v[i]);
      if (weight != nullptr) ScaleByWeight(factors.chunk[i].v, v[i]);
      const uint4 rounded = Pack8(v[i]);
      if (has && to.out != nullptr) {
        *reinterpret_cast<uint4*>(to.out + row * n + 8 * chunk) = rounded;
      }
      if constexpr (kQuantise) {
        Unpack8(rounded, v[i]);
        const uint32_t byte = ScaleByteFp8(MaxOfLanes<16>(MaxMagnitude(v[i])));
        if (!has) continue;
        *reinterpret_cast<uint2*>(to.codes + row * n + 8 * chunk) =
            E4m3Codes(v[i], InverseOfScale(byte));
        if (chunk % 16 == 0) {
          to.scales[chunk / 16 * to.scale_stride + row] = __uint_as_float(byte << 23);
        }
      }
    }
  }
}

// Launches as many blocks as run at a time, or what there are rows for.
template <typename In, int kWarps, bool kQuantise>
void LaunchRows(Stream stream, const In* x, const uint16_t* weight, int64_t rows, int64_t n,
                float eps, const NormOutput& to) {
  constexpr int kRowsOfBlock = kWarps == 1 ? kRowsOfWarps : 1;
  const auto kernel = NormRowsKernel<In, kWarps, kQuantise>;
  static const int blocks_max = [kernel] {
    int resident = 1;
    static_cast<void>(cudaOccupancyMaxActiveBlocksPerMultiprocessor(
        &resident, kernel, kLanes * kWarps * kRowsOfBlock, 0));
    return std::max(resident, 1) * MultiprocessorCount();
  }();
  const int64_t blocks = std::min(CeilDiv(rows, int64_t{kRowsOfBlock}), int64_t{blocks_max});
  kernel<<<static_cast<unsigned>(blocks), dim3(kLanes * kWarps, kRowsOfBlock), 0, stream>>>(
      x, weight, rows, static_cast<int>(n), eps, to);
}

template <typename In, bool kQuantise>
absl::Status Launch(Stream stream, const In* x, const uint16_t* weight, int64_t rows, int64_t n,
                    float eps, const NormOutput& to) {
  CAIRN_RETURN_IF_ERROR(Require(rows >= 0 && rows <= kRowsMax, "RmsNorm: rows not in [0, 2^30]"));
  CAIRN_RETURN_IF_ERROR(Require(n > 0 && n <= 8192 && n % (kQuantise ? 128 : 8) == 0,
                                kQuantise ? "RmsNormQuantise: n not a multiple of 128 up to 8192"
                                          : "RmsNorm: n not a multiple of 8 up to 8192"));
  if (rows == 0) return absl::OkStatus();
  if (n <= 1024) {
    LaunchRows<In, 1, kQuantise>(stream, x, weight, rows, n, eps, to);
  } else if (n <= 4096) {
    LaunchRows<In, 4, kQuantise>(stream, x, weight, rows, n, eps, to);
  } else {
    LaunchRows<In, 8, kQuantise>(stream, x, weight, rows, n, eps, to);
  }
  return LaunchStatus("RmsNorm");
}

// Row r belongs to token r / heads. A warp a row.
template <typename T, int kDim>
__global__ void __launch_bounds__(kLanes* kRowsOfWarps)
    NormRotateKernel(const T* x, const uint16_t* weight, const float* cos_sin, int64_t rows,
                     int heads, float eps, T* out) {
  LetNextStartOfFew();
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kRowsOfWarps + threadIdx.y;
  if (row >= rows) return;
  const int lane = threadIdx.x;
  WarpRow<kDim> values;
  values.Load(x + row * kDim, lane);
  values.NormRotate(weight, eps, cos_sin + row / heads * kRopeDim, lane);
#pragma unroll
  for (int i = 0; i < values.kChunks; ++i) {
    if (values.Has(i, lane)) Store8(values.v[i], out + row * kDim + 8 * values.At(i, lane));
  }
}

template <typename T, int kDim>
absl::Status LaunchRotate(Stream stream, const T* x, const uint16_t* weight, const float* cos_sin,
                          int64_t rows, int64_t heads, float eps, T* out) {
  if (rows == 0) return absl::OkStatus();
  const auto grid = static_cast<unsigned>(CeilDiv(rows, int64_t{kRowsOfWarps}));
  NormRotateKernel<T, kDim><<<grid, dim3(kLanes, kRowsOfWarps), 0, stream>>>(
      x, weight, cos_sin, rows, static_cast<int>(heads), eps, out);
  return LaunchStatus("NormRotate");
}

__global__ void RopeAnglesKernel(const int32_t* positions, int64_t count, const float* freq,
                                 int pairs, float* cos_sin) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count * pairs) return;
  const float angle = static_cast<float>(positions[i / pairs]) * freq[i % pairs];
  double sine;
  double cosine;
  sincos(static_cast<double>(angle), &sine, &cosine);
  reinterpret_cast<float2*>(cos_sin)[i] = {static_cast<float>(cosine), static_cast<float>(sine)};
}

}  // namespace

absl::Status RmsNorm(Stream stream, const uint16_t* x, const uint16_t* weight, int64_t rows,
                     int64_t n, float eps, uint16_t* out) {
  return Launch<uint16_t, false>(stream, x, weight, rows, n, eps, {out});
}

absl::Status RmsNorm(Stream stream, const float* x, const uint16_t* weight, int64_t rows, int64_t n,
                     float eps, uint16_t* out) {
  return Launch<float, false>(stream, x, weight, rows, n, eps, {out});
}

absl::Status RmsNormQuantise(Stream stream, const uint16_t* x, const uint16_t* weight, int64_t rows,
                             int64_t n, float eps, uint16_t* out, uint8_t* codes, float* scales,
                             int64_t scale_stride) {
  CAIRN_RETURN_IF_ERROR(
      Require(scale_stride >= rows, "RmsNormQuantise: scale_stride is less than rows"));
  return Launch<uint16_t, true>(stream, x, weight, rows, n, eps,
                                {out, codes, scales, scale_stride});
}

absl::Status NormRotateHeads(Stream stream, const uint16_t* q, const float* cos_sin, int64_t tokens,
                             int64_t heads, float eps, uint16_t* out) {
  CAIRN_RETURN_IF_ERROR(Require(tokens >= 0 && heads > 0 && heads <= 1024 && tokens <= kRowsMax / heads,
                                "NormRotateHeads: heads not in [1, 1024], or over 2^30 rows"));
  return LaunchRotate<uint16_t, 512>(stream, q, nullptr, cos_sin, tokens * heads, heads, eps, out);
}

absl::Status NormRotateKeys(Stream stream, const float* x, const uint16_t* weight,
                            const float* cos_sin, int64_t rows, float eps, float* out) {
  CAIRN_RETURN_IF_ERROR(
      Require(rows >= 0 && rows <= kRowsMax, "NormRotateKeys: rows not in [0, 2^30]"));
  return LaunchRotate<float, 128>(stream, x, weight, cos_sin, rows, 1, eps, out);
}

absl::Status RopeAngles(Stream stream, const int32_t* positions, int64_t count, const float* freq,
                        int64_t pairs, float* cos_sin) {
  CAIRN_RETURN_IF_ERROR(Require(pairs > 0 && pairs <= 1024 && count >= 0 && count <= kRowsMax,
                                "RopeAngles: pairs not in [1, 1024], or over 2^30 positions"));
  if (count == 0) return absl::OkStatus();
  constexpr int64_t kThreads = 256;
  RopeAnglesKernel<<<static_cast<unsigned>(CeilDiv(count * pairs, kThreads)), kThreads, 0,
                     stream>>>(positions, count, freq, static_cast<int>(pairs), cos_sin);
  return LaunchStatus("RopeAngles");
}

}  // namespace cairn::kernels::cuda
