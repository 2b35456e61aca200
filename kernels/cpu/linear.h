// linear.h: y = W x for many x at once, each output's sum in one fixed order.
//
// F32, BF16 and FP8: y[m][n] = fma(x[m][k], W[n][k], ...) for k = 0, 1, ..., K-1, starting from 0,
// in F32: one accumulator, ascending k. FP4: so within each group of 32 k that shares a scale, with
// values before scaling; then the groups' sums ascending, y = fma(group, scale, y) from 0. So an
// output's bits depend on its own row of x and of W alone: not on how many rows came along, on
// tiles or on threads.
//
// PairLinear is another numerics, for BF16, FP8 and FP4: inputs are rounded to BF16 (which those
// rounded to FP8 are already), so that every product is exact, and summed in AMX's order. Of each
// group of 32 k:
//   even = fma(x[k], W[n][k], even) from 0 for its even k ascending, odd so for its odd k;
// then the groups ascending, y = y + (even + odd) from 0. W is decoded exactly, scales included,
// with each zero of FP8 and FP4 as -0. Wherever a result is subnormal it is zero, with its sign; so
// are inputs, before they are rounded, and weights.
//
// Threads: one caller a pool. Shapes: x [m, k] with row stride ldx, y [m, n] with row stride ldy,
// both in floats.
#ifndef CAIRN_KERNELS_CPU_LINEAR_H_
#define CAIRN_KERNELS_CPU_LINEAR_H_

#include <cstdint>
#include <span>

#include "kernels/cpu/packed_matrix.h"
#include "kernels/cpu/thread_pool.h"

namespace cairn::kernels {

void Linear(ThreadPool& pool, const PackedMatrix& w, const float* x, int64_t ldx, int64_t m,
            float* y, int64_t ldy);

// Several matrices of one shape and format, by all threads together: each by itself may be too
// small for that.
struct LinearPart {
  const PackedMatrix* w;
  const float* x;
  float* y;
};
// REQUIRES: at least one part.
void LinearParts(ThreadPool& pool, std::span<const LinearPart> parts, int64_t ldx, int64_t m,
                 int64_t ldy);

// REQUIRES: w.takes_pairs(). With whatever cpu_path.h chose.
void PairLinear(ThreadPool& pool, const PackedMatrix& w, const float* x, int64_t ldx, int64_t m,
                float* y, int64_t ldy);
void PairLinearParts(ThreadPool& pool, std::span<const LinearPart> parts, int64_t ldx, int64_t m,
                     int64_t ldy);

// One panel for the caller's own loops: y[m][16] += x[m][0..count) * panel[count][16], continuing
// the sums that y holds.
void PanelMultiply(const float* panel, int64_t count, const float* x, int64_t ldx, int64_t m,
                   float* y, int64_t ldy);

}  // namespace cairn::kernels

#endif  // CAIRN_KERNELS_CPU_LINEAR_H_
