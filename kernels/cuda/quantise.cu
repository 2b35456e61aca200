#include "kernels/cuda/quantise.h"

#include "absl/strings/str_cat.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/row_math.cuh"

namespace cairn::kernels::cuda {
namespace {

// Eight values a row and thread, so 16 lanes have a group of 128. A thread has them of four rows,
// whose loads are under way together: blocks of one row were too short for their early start.
constexpr int kGroupLanes = 16;
constexpr int kThreadRows = 4;
constexpr int kBlock = 256;

// A thread's columns, and its rows: from `row` on, less than four at the end.
struct Place {
  int64_t row, group, column;
  int rows;
};

// Lanes behind the end have no rows, but take part in the exchange of Quantise.
__device__ Place FindPlace(const QuantisedRows& to) {
  const auto groups = static_cast<uint32_t>(to.k / kQuantGroup);
  const uint32_t unit = (blockIdx.x * kBlock + threadIdx.x) / kGroupLanes;
  const int64_t row = int64_t{unit / groups} * kThreadRows;
  const int64_t group = unit % groups;
  const int64_t rows = max(int64_t{0}, min(int64_t{kThreadRows}, to.rows - row));
  return {row, group, group * kQuantGroup + threadIdx.x % kGroupLanes * 8, static_cast<int>(rows)};
}

using FourRows = uint4[kThreadRows];  // BF16, as it lies in memory

// row_of(r): where the place's r-th row begins.
template <class RowOf>
__device__ void Load(FourRows& out, const Place& at, const RowOf& row_of) {
#pragma unroll
  for (int r = 0; r < kThreadRows; ++r) {
    out[r] = {};
    if (r < at.rows) out[r] = __ldg(reinterpret_cast<const uint4*>(row_of(r) + at.column));
  }
}

// values(r, v): the eight values of the place's r-th row.
template <class Values>
__device__ void Quantise(const Place& at, const QuantisedRows& to, const Values& values) {
  float scale[kThreadRows];
#pragma unroll
  for (int r = 0; r < kThreadRows; ++r) {
    float v[8];
    values(r, v);
    const uint32_t byte = ScaleByteFp8(MaxOfLanes<kGroupLanes>(MaxMagnitude(v)));
    scale[r] = __uint_as_float(byte << 23);
    if (r < at.rows) {
      *reinterpret_cast<uint2*>(to.codes + (at.row + r) * to.k + at.column) =
          E4m3Codes(v, InverseOfScale(byte));
    }
  }
  if (threadIdx.x % kGroupLanes != 0) return;
  float* const scales = to.scales + at.group * to.scale_stride + at.row;
  if (at.rows == kThreadRows) {
    *reinterpret_cast<float4*>(scales) = {scale[0], scale[1], scale[2], scale[3]};
    return;
  }
#pragma unroll
  for (int r = 0; r < kThreadRows - 1; ++r) {
    if (r < at.rows) scales[r] = scale[r];
  }
}

__global__ void __launch_bounds__(kBlock)
    QuantiseKernel(const uint16_t* x, const int32_t* from, QuantisedRows to) {
  LetNextStart();
  WaitForKernelsBefore();
  const Place at = FindPlace(to);
  FourRows rows;
  Load(rows, at, [&](int r) {
    const int64_t row = at.row + r;
    return x + (from == nullptr ? row : from[row]) * to.k;
  });
  Quantise(at, to, [&](int r, float(&v)[8]) { Unpack8(rows[r], v); });
}

// x / (1 + Exp(-x)) of BF16 x, rounded as a division is: its steps as the compiler has them,
// without its check for numbers that they do not serve. There are none: quarters of both are exact,
// and keep 1 / down from being subnormal.
__device__ float Silu(float x) {
  const float a = x * 0.25f;
  const float down = (1.0f + Exp(-x)) * 0.25f;
  float near;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(near) : "f"(down));
  near = fmaf(near, fmaf(-down, near, 1.0f), near);
  const float y = a * near;
  return fmaf(-fmaf(down, y, -a), near, y);  // in this form -0 stays -0
}

// vector_ops.h's SwiGlu, operation by operation, and BF16's rounding.
__device__ void SwiGlu8(float (&gate)[8], const float (&up)[8], float limit, float factor) {
  const float top = limit > 0.0f ? limit : __int_as_float(0x7f800000);
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    gate[i] = Silu(fminf(gate[i], top)) * fmaxf(fminf(up[i], top), -top) * factor;
  }
  Unpack8(Pack8(gate), gate);
}

__global__ void __launch_bounds__(kBlock)
    SwiGluKernel(const uint16_t* gate_up, const float* factors, float limit, QuantisedRows to) {
  LetNextStart();
  WaitForKernelsBefore();
  const Place at = FindPlace(to);
  const auto gate_of = [&](int r) { return gate_up + (at.row + r) * 2 * to.k; };
  FourRows gates, ups;
  Load(gates, at, gate_of);
  Load(ups, at, [&](int r) { return gate_of(r) + to.k; });
  Quantise(at, to, [&](int r, float(&v)[8]) {
    float up[8];
    Unpack8(gates[r], v);
    Unpack8(ups[r], up);
    const bool weighted = factors != nullptr && r < at.rows;
    SwiGlu8(v, up, limit, weighted ? factors[at.row + r] : 1.0f);
  });
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
  if (reinterpret_cast<uintptr_t>(to.scales) % 16 != 0) {
    return absl::InvalidArgumentError("scales of quantised rows must be aligned to 16 bytes");
  }
  return absl::OkStatus();
}

unsigned Blocks(const QuantisedRows& to) {
  const int64_t units = CeilDiv(to.rows, int64_t{kThreadRows}) * (to.k / kQuantGroup);
  return static_cast<unsigned>(CeilDiv(units * kGroupLanes, int64_t{kBlock}));
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
  // Few rows wait for their turn: a token was 3 % faster so, perhaps because what starts early takes
  // room that the shared expert needs, which is computed beside the others.
  const LaunchShape shape{Blocks(to), kBlock};
  return LaunchEarlyIf(!IsFew(shape.grid), stream, "QuantiseSwiGlu", shape, SwiGluKernel, gate_up,
                       factors, limit, to);
}

}  // namespace cairn::kernels::cuda
