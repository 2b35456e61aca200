// row_math.cuh: what the kernels over rows share: eight values at a time, sums in a fixed order, the
// CPU's rounding to e4m3, its Exp and its rotation.
//
// Sum order "by lanes": a row is cut into chunks of eight values; lane l of L (32 a warp) adds those
// of chunks l, l + L, l + 2L, ... in turn (fma where there is a product); then lanes are added by
// halving distances (16, 8, 4, 2, 1), then warps in their order. L is a function of the row's length.
//
// Everything that kernels/cpu defines to the bit (Exp, Sigmoid, e4m3 codes, scales, Rotate) gives the
// same bits here for the same F32 values.
#ifndef CAIRN_KERNELS_CUDA_ROW_MATH_CUH_
#define CAIRN_KERNELS_CUDA_ROW_MATH_CUH_

#include <cstdint>

#include "absl/strings/string_view.h"
#include "kernels/cuda/device.h"

namespace cairn::kernels::cuda {

constexpr int kLanes = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

inline absl::Status Require(bool holds, absl::string_view what) {
  return holds ? absl::OkStatus() : absl::InvalidArgumentError(what);
}

template <typename T>
__host__ __device__ constexpr T CeilDiv(T a, T b) {
  return (a + b - 1) / b;
}

// ---- eight values ----

__device__ inline float Bf16Low(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ inline float Bf16High(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

// Rounded to nearest even; `low` in the lower half.
__device__ inline uint32_t PackBf16(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

__device__ inline void Unpack8(uint4 v, float (&out)[8]) {
  const uint32_t pairs[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    out[2 * i] = Bf16Low(pairs[i]);
    out[2 * i + 1] = Bf16High(pairs[i]);
  }
}

__device__ inline uint4 Pack8(const float (&v)[8]) {
  return {PackBf16(v[0], v[1]), PackBf16(v[2], v[3]), PackBf16(v[4], v[5]), PackBf16(v[6], v[7])};
}

// `at` is aligned to the eight values, or for F32 to 16 bytes.
__device__ inline void Load8(const uint16_t* at, float (&out)[8]) {
  Unpack8(*reinterpret_cast<const uint4*>(at), out);
}
__device__ inline void Load8(const float* at, float (&out)[8]) {
  const float4 a = reinterpret_cast<const float4*>(at)[0];
  const float4 b = reinterpret_cast<const float4*>(at)[1];
  out[0] = a.x, out[1] = a.y, out[2] = a.z, out[3] = a.w;
  out[4] = b.x, out[5] = b.y, out[6] = b.z, out[7] = b.w;
}
__device__ inline void Store8(const float (&v)[8], uint16_t* at) {
  *reinterpret_cast<uint4*>(at) = Pack8(v);
}
__device__ inline void Store8(const float (&v)[8], float* at) {
  reinterpret_cast<float4*>(at)[0] = {v[0], v[1], v[2], v[3]};
  reinterpret_cast<float4*>(at)[1] = {v[4], v[5], v[6], v[7]};
}

// ---- sums ----

__device__ inline void AddSquares(const float (&v)[8], float& sum) {
#pragma unroll
  for (int i = 0; i < 8; ++i) sum = fmaf(v[i], v[i], sum);
}

// The sum of all lanes, in each of them.
__device__ inline float SumOfLanes(float v) {
#pragma unroll
  for (int distance = kLanes / 2; distance > 0; distance /= 2) {
    v += __shfl_xor_sync(kAllLanes, v, distance);
  }
  return v;
}

// The largest of `kGroup` neighbouring lanes (a power of two), in each of them.
template <int kGroup>
__device__ inline float MaxOfLanes(float v) {
#pragma unroll
  for (int distance = kGroup / 2; distance > 0; distance /= 2) {
    v = fmaxf(v, __shfl_xor_sync(kAllLanes, v, distance));
  }
  return v;
}

// What RmsNorm multiplies with.
__device__ inline float NormScale(float sum_squares, int64_t n, float eps) {
  return 1.0f / sqrtf(sum_squares / static_cast<float>(n) + eps);
}

// v *= scale, then *= weight if there is one: two roundings, as the CPU's.
__device__ inline void ScaleBy(float scale, float (&v)[8]) {
#pragma unroll
  for (int i = 0; i < 8; ++i) v[i] *= scale;
}
__device__ inline void ScaleByWeight(uint4 weight, float (&v)[8]) {
  float w[8];
  Unpack8(weight, w);
#pragma unroll
  for (int i = 0; i < 8; ++i) v[i] *= w[i];
}

// ---- e4m3 ----

__device__ inline float MaxMagnitude(const float (&v)[8]) {
  float most = 0.0f;
#pragma unroll
  for (int i = 0; i < 8; ++i) most = fmaxf(most, fabsf(v[i]));
  return most;
}

__device__ inline uint32_t ScaleByteFp8(float amax) {
  const uint32_t bits = __float_as_uint(fmaxf(amax, 1e-4f) * (1.0f / 448.0f));
  return (bits >> 23) + ((bits & 0x7fffffu) != 0 ? 1u : 0u);
}

// 1 / 2^(byte - 127). `byte` is one that ScaleByteFp8 gives: far from both ends.
__device__ inline float InverseOfScale(uint32_t byte) {
  return __uint_as_float((254u - byte) << 23);
}

__device__ inline uint32_t E4m3Pair(float low, float high) {
  uint16_t pair;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(high), "f"(low));
  return pair;
}

// Eight codes, the first in the lowest byte.
__device__ inline uint2 E4m3Codes(const float (&v)[8], float inverse) {
  uint32_t pairs[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) pairs[i] = E4m3Pair(v[2 * i] * inverse, v[2 * i + 1] * inverse);
  return {pairs[0] | pairs[1] << 16, pairs[2] | pairs[3] << 16};
}

// ---- functions ----

// kernels/cpu/vector_ops.h: 0 below -87, clamped at exp(88).
__device__ inline float Exp(float x) {
  const bool tiny = x < -87.0f;
  x = fmaxf(fminf(x, 88.0f), -87.0f);
  // Added to 1.5 * 2^23, a number is rounded to a whole one, which is then in the lowest bits: twice
  // the speed of the conversions' own instructions.
  constexpr float kRound = 12582912.0f;
  const float rounded = x * 1.44269504088896341f + kRound;
  const float n = rounded - kRound;
  const float r = fmaf(n, 2.12194440e-4f, fmaf(n, -0.693359375f, x));
  float p = 1.9875691500e-4f;
  p = fmaf(p, r, 1.3981999507e-3f);
  p = fmaf(p, r, 8.3334519073e-3f);
  p = fmaf(p, r, 4.1665795894e-2f);
  p = fmaf(p, r, 1.6666665459e-1f);
  p = fmaf(p, r, 5.0000001201e-1f);
  p = fmaf(p, r * r, r) + 1.0f;
  return p * __uint_as_float(tiny ? 0u : (__float_as_uint(rounded) + 127u) << 23);
}

__device__ inline float Sigmoid(float x) { return 1.0f / (1.0f + Exp(-x)); }

// Four pairs; cos_sin: (cos, sin) a pair.
__device__ inline void Rotate8(const float* cos_sin, float (&v)[8]) {
  float turn[8];
  Load8(cos_sin, turn);
#pragma unroll
  for (int i = 0; i < 8; i += 2) {
    const float a = v[i];
    const float b = v[i + 1];
    v[i] = a * turn[i] - b * turn[i + 1];
    v[i + 1] = b * turn[i] + a * turn[i + 1];
  }
}

// ---- a row of kDim values in a warp's registers ----

constexpr int kRopeDim = 64;

// Chunk i of the lane is the row's chunk lane + 32 i, of zeros where the row has none.
template <int kDim>
struct WarpRow {
  static constexpr int kChunksAll = kDim / 8;
  static constexpr int kChunks = (kChunksAll + kLanes - 1) / kLanes;
  static constexpr int kRopeChunk = (kDim - kRopeDim) / 8;  // the first that is rotated
  float v[kChunks][8];

  __device__ static int At(int i, int lane) { return lane + kLanes * i; }
  __device__ static bool Has(int i, int lane) { return At(i, lane) < kChunksAll; }

  template <typename In>
  __device__ void Load(const In* x, int lane) {
#pragma unroll
    for (int i = 0; i < kChunks; ++i) {
      if (Has(i, lane)) {
        Load8(x + 8 * At(i, lane), v[i]);
      } else {
#pragma unroll
        for (int e = 0; e < 8; ++e) v[i][e] = 0.0f;
      }
    }
  }

  // RmsNorm with a weight or null, then rotation of the last 64 dims.
  __device__ void NormRotate(const uint16_t* weight, float eps, const float* cos_sin, int lane) {
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < kChunks; ++i) AddSquares(v[i], sum);
    const float scale = NormScale(SumOfLanes(sum), kDim, eps);
#pragma unroll
    for (int i = 0; i < kChunks; ++i) {
      if (!Has(i, lane)) continue;
      const int chunk = At(i, lane);
      ScaleBy(scale, v[i]);
      if (weight != nullptr) {
        ScaleByWeight(*reinterpret_cast<const uint4*>(weight + 8 * chunk), v[i]);
      }
      if (chunk >= kRopeChunk) Rotate8(cos_sin + 8 * (chunk - kRopeChunk), v[i]);
    }
  }
};

}  // namespace cairn::kernels::cuda

#endif  // CAIRN_KERNELS_CUDA_ROW_MATH_CUH_
