// attention.h: one query token's heads against one list of K = V rows, with a sink, in one softmax.
// Spec section 2.4.
//
//   z[h][j] = dot(q[h], row_j) * scale           dot: by eight (vector_ops.h)
//   out[h]  = sum_j exp(z - max) row_j / (sum_j exp(z - max) + exp(sink[h] - max)),  max over the
//   rows only
// Orders: the denominator by eight over j, the sink added last; the weighted sum by fma for j
// ascending. The list is the window (oldest first), then the compressed rows by ascending index. So
// the bits depend on the query and its rows alone.
//
// Threads: pure, any number at once. Shapes: q and out [heads, dim]; rows as segments of [count,
// dim] floats.
#ifndef CAIRN_KERNELS_CPU_ATTENTION_H_
#define CAIRN_KERNELS_CPU_ATTENTION_H_

#include <cstdint>
#include <vector>

namespace cairn::kernels {

struct RowSegment {
  const float* rows = nullptr;
  int64_t count = 0;
};

// dim is a multiple of 8. scratch is resized as needed and may be reused by the same thread.
void Attend(const float* q, int64_t heads, int64_t dim, const RowSegment& window,
            const RowSegment& compressed, float scale, const float* sink, float* out,
            std::vector<float>& scratch);

}  // namespace cairn::kernels

#endif  // CAIRN_KERNELS_CPU_ATTENTION_H_
