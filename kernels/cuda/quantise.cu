#include <cuda_fp8.h>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/quantise.h"

namespace cairn::kernels::cuda {
namespace {

// Eight values a thread, so 16 lanes have a group of 128.
constexpr int kLanes = 16;
constexpr int kBlock = 256;

struct Eight {
  float v[8];
};

// What a thread's 16 lanes work on.
struct Place {
  int64_t row, group, column;
  bool inside;
};

__device__ float LowHalf(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ float HighHalf(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

__device__ Eight LoadBf16(const uint16_t* from) {
  const uint4 w = __ldg(reinterpret_cast<const uint4*>(from));
  return {{LowHalf(w.x), HighHalf(w.x), LowHalf(w.y), HighHalf(w.y), LowHalf(w.z), HighHalf(w.z),
           LowHalf(w.w), HighHalf(w.w)}};
}

__device__ float RoundBf16(float v) {
  const uint32_t bits = __float_as_uint(v);
  return __uint_as_float((bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u);
}

// vector_ops.h's Exp, operation by operation.
__device__ float Exp(float x) {
  if (x < -87.0f) return 0.0f;
  x = fminf(x, 88.0f);
  const float n = rintf(x * 1.44269504088896341f);
  float r = fmaf(n, -0.693359375f, x);
  r = fmaf(n, 2.12194440e-4f, r);
  float p = 1.9875691500e-4f;
  p = fmaf(p, r, 1.3981999507e-3f);
  p = fmaf(p, r, 8.3334519073e-3f);
  p = fmaf(p, r, 4.1665795894e-2f);
  p = fmaf(p, r, 1.6666665459e-1f);
  p = fmaf(p, r, 5.0000001201e-1f);
  p = fmaf(p, r * r, r);
  p = p + 1.0f;
  return p * __uint_as_float(static_cast<uint32_t>(static_cast<int>(n) + 127) << 23);
}

__device__ float SwiGluOf(float gate, float up, float limit, float factor) {
  if (limit > 0.0f) {
    gate = fminf(gate, limit);
    up = fminf(fmaxf(up, -limit), limit);
  }
  return RoundBf16(gate / (1.0f + Exp(-gate)) * up * factor);
}

// The 16 lanes of a group: its scale, and the thread's eight codes.
__device__ void StoreGroup(const Eight& x, const QuantisedRows& to, const Place& at) {
  float most = 0.0f;
  for (int i = 0; i < 8; ++i) most = fmaxf(most, fabsf(x.v[i]));
  for (int step = kLanes / 2; step > 0; step /= 2) {
    most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, step));
  }
  const uint32_t bits = __float_as_uint(fmaxf(most, 1e-4f) * (1.0f / 448.0f));
  const uint32_t exponent = (bits >> 23) + ((bits & 0x7fffffu) != 0 ? 1u : 0u);
  const float down = __uint_as_float((254u - exponent) << 23);
  uint32_t codes[2] = {};
  for (int i = 0; i < 4; ++i) {
    const float2 pair = {x.v[2 * i] * down, x.v[2 * i + 1] * down};
    const uint32_t two = __nv_cvt_float2_to_fp8x2(pair, __NV_SATFINITE, __NV_E4M3);
    codes[i / 2] |= two << (i % 2 * 16);
  }
  if (!at.inside) return;
  *reinterpret_cast<uint2*>(to.codes + at.row * to.k + at.column) = {codes[0], codes[1]};
  if (threadIdx.x % kLanes == 0) {
    to.scales[at.group * to.scale_stride + at.row] = __uint_as_float(exponent << 23);
  }
}

// All lanes take part in the exchange of StoreGroup, so those behind the end read the last group.
__device__ Place FindPlace(const QuantisedRows& to) {
  const int64_t groups = to.k / kQuantGroup;
  const int64_t unit = (static_cast<int64_t>(blockIdx.x) * kBlock + threadIdx.x) / kLanes;
  const int64_t last = to.rows * groups - 1;
  const int64_t mine = unit < last ? unit : last;
  const int64_t group = mine % groups;
  return {mine / groups, group, group * kQuantGroup + threadIdx.x % kLanes * 8, unit <= last};
}

__global__ void __launch_bounds__(kBlock)
    QuantiseKernel(const uint16_t* x, const int32_t* from, QuantisedRows to) {
  LetNextStart();
  WaitForKernelsBefore();
  const Place at = FindPlace(to);
  const int64_t source = from == nullptr ? at.row : from[at.row];
  StoreGroup(LoadBf16(x + source * to.k + at.column), to, at);
}

__global__ void __launch_bounds__(kBlock)
    SwiGluKernel(const uint16_t* gate_up, const float* factors, float limit, QuantisedRows to) {
  LetNextStart();
  WaitForKernelsBefore();
  const Place at = FindPlace(to);
  const uint16_t* const row = gate_up + at.row * 2 * to.k;
  const Eight gate = LoadBf16(row + at.column);
  const Eight up = LoadBf16(row + to.k + at.column);
  const float factor = factors == nullptr ? 1.0f : factors[at.row];
  Eight y;
  for (int i = 0; i < 8; ++i) y.v[i] = SwiGluOf(gate.v[i], up.v[i], limit, factor);
  StoreGroup(y, to, at);
}

absl::Status Check(const QuantisedRows& to) {
  if (to.rows < 0 || to.k <= 0 || to.k % kQuantGroup != 0) {
    return absl::InvalidArgumentError(absl::StrCat("quantising ", to.rows, " rows of ", to.k,
                                                   " values: k must be a multiple of ",
                                                   kQuantGroup));
  }
  if (to.scale_stride < to.rows || to.scale_stride % 4 != 0) {
    return absl::InvalidArgumentError(absl::StrCat("scale_stride ", to.scale_stride, " for ",
                                                   to.rows,
                                                   " rows: at least those, a multiple of 4"));
  }
  return absl::OkStatus();
}

unsigned Blocks(const QuantisedRows& to) {
  return static_cast<unsigned>((to.rows * (to.k / kQuantGroup) * kLanes + kBlock - 1) / kBlock);
}

}  // namespace

absl::Status QuantiseRows(Stream stream, const uint16_t* x, const int32_t* from,
                          const QuantisedRows& to) {
  CAIRN_RETURN_IF_ERROR(Check(to));
  if (to.rows == 0) return absl::OkStatus();
  return LaunchEarly(stream, "QuantiseRows", {Blocks(to), kBlock}, QuantiseKernel, x, from, to);
}

absl::Status QuantiseSwiGlu(Stream stream, const uint16_t* gate_up, const float* factors,
                            float limit, const QuantisedRows& to) {
  CAIRN_RETURN_IF_ERROR(Check(to));
  if (to.rows == 0) return absl::OkStatus();
  return LaunchEarly(stream, "QuantiseSwiGlu", {Blocks(to), kBlock}, SwiGluKernel, gate_up, factors,
                     limit, to);
}

}  // namespace cairn::kernels::cuda
