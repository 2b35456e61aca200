// row_loops.h: the inner loops over K = V rows, of Attend and of decoding, once for each set of
// instructions (cpu_path.h). For attention.cc and kv_rows.cc.
//
// Threads: pure functions. Orders: attention.h; they are the same in every set, to the bit.
#ifndef CAIRN_KERNELS_CPU_ROW_LOOPS_H_
#define CAIRN_KERNELS_CPU_ROW_LOOPS_H_

#include <cstdint>
#include <vector>

#include "kernels/cpu/attention.h"

namespace cairn::kernels {

struct RowLoops {
  // Heads that `scores` and `add` may be given at once: the powers of two from heads_min to
  // heads_max.
  int64_t heads_min, heads_max;
  // dim is a multiple of it.
  int64_t lanes;
  // z[h][j] = dot(q[h], row j) * scale. q lies by eights: [dim / 8][heads][8].
  void (*scores)(const float* q, int64_t heads, int64_t dim, const float* rows, int64_t count,
                 float scale, float* z, int64_t ldz);
  // out[h] += p[h][j] * row j, j ascending.
  void (*add)(const float* p, int64_t ldp, int64_t heads, int64_t dim, const float* rows,
              int64_t count, float* out);
  // e4m3 in groups of 64, each with a scale.
  void (*decode_fp8)(const uint8_t* codes, int64_t groups, const float* scales, float* x);
};

RowLoops Avx2RowLoops();
// REQUIRES: HasCpuPath(CpuPath::kAvx512) where its functions are called.
RowLoops Avx512RowLoops();
// Those of ChosenCpuPath().
const RowLoops& ChosenRowLoops();

// Attend with these where they take as many heads and such rows, else with AVX2's.
void Attend(const RowLoops& widest, const float* q, int64_t heads, int64_t dim,
            const RowSegment& window, const RowSegment& compressed, float scale, const float* sink,
            float* out, std::vector<float>& scratch);

}  // namespace cairn::kernels

#endif  // CAIRN_KERNELS_CPU_ROW_LOOPS_H_
