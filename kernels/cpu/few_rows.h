// few_rows.h: Linear for so few rows that reading W is most of the work: weights are decoded in
// registers and multiplied at once. For linear.cc.
//
// Threads: pure functions. Orders and shapes: linear.h.
#ifndef CAIRN_KERNELS_CPU_FEW_ROWS_H_
#define CAIRN_KERNELS_CPU_FEW_ROWS_H_

#include <cstdint>

#include "kernels/cpu/packed_matrix.h"

namespace cairn::kernels {

// Whether MultiplyFewRows is the faster way.
bool IsFewRows(WeightFormat format, int64_t m);

// Columns of panels [begin, end) of y.
void MultiplyFewRows(const PackedMatrix& w, int64_t begin, int64_t end, const float* x, int64_t ldx,
                     int64_t m, float* y, int64_t ldy);

}  // namespace cairn::kernels

#endif  // CAIRN_KERNELS_CPU_FEW_ROWS_H_
