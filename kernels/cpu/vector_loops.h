// vector_loops.h: what the loops over registers are written with, for the files that are compiled
// once for each set of instructions (products.h).
//
// Everything is in an unnamed namespace on purpose: a function that two such files share by name
// would be kept once by the linker, with whichever instructions it came.
//
// V, the vectors of a set of instructions, has
//   Floats                16 floats, one for each output of a panel
//   Zero, Load, Store     of Floats; any address
//   Splat, Fma            Fma(v, w, sum): v * w + sum, one rounding; v is Floats or a Splat(float*)
//   Add, NegativeZeros    the latter: each zero as -0
//   Decoder<format>       kParts parts of a chunk, each decoded at once to its values of k:
//                         Decode(chunk, part, scales, Floats*), and Scales(e8m0) of a group
//   kFewRows, kPanelRows, kTileRows, kPairRows
//                         rows of a tile of few_rows.h, of PanelMultiply, of many_rows.h and of
//                         pair_rows.h
//   Panels(format, rows)  panels of a tile of few_rows.h
//
// Threads: pure functions.
#ifndef CAIRN_KERNELS_CPU_VECTOR_LOOPS_H_
#define CAIRN_KERNELS_CPU_VECTOR_LOOPS_H_

#include <immintrin.h>

#include <cstdint>
#include <utility>

#include "kernels/cpu/packed_matrix.h"

namespace cairn::kernels {
namespace {

constexpr int kPanel = PackedMatrix::kPanel;

template <int value>
struct Constant {
  [[gnu::always_inline]] constexpr operator int() const { return value; }
};

// Calls body(0), ..., body(n - 1) with constants. The compiler splits arrays into registers before
// it unrolls nested loops, so sums indexed by such loops would be stored at every step.
template <int n, typename Body>
[[gnu::always_inline]] inline void Unrolled(Body body) {
  [&]<int... i>(std::integer_sequence<int, i...>) __attribute__((always_inline)) {
    (body(Constant<i>()), ...);
  }
  (std::make_integer_sequence<int, n>());
}

constexpr int64_t Smaller(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Calls body(first, count) for `m` rows in equal parts of at most `most`.
template <typename Body>
[[gnu::always_inline]] inline void InParts(int64_t m, int64_t most, Body body) {
  int64_t first = 0;
  for (int64_t parts = CeilDiv(m, most); parts > 0; --parts) {
    const int64_t count = CeilDiv(m - first, parts);
    body(first, count);
    first += count;
  }
}

// MXCSR's bits by which subnormal numbers are taken and made as zeros.
constexpr unsigned int kNoSubnormals = 0x8040;

// Not moved before or behind the loads and stores of the sums. (No object whose end restores it:
// products_avx512.cc may have no frames to unwind, check_avx512.)
inline void SetMxcsr(unsigned int state) {
  asm volatile("" ::: "memory");
  _mm_setcsr(state);
  asm volatile("" ::: "memory");
}

}  // namespace
}  // namespace cairn::kernels

#endif  // CAIRN_KERNELS_CPU_VECTOR_LOOPS_H_
