// products.h: the inner loops of Linear, PanelMultiply and PairLinear, compiled once for each set
// of instructions (cpu_path.h). For linear.cc.
//
// Threads: pure functions; a Scratch belongs to one call at a time. Orders and shapes: linear.h.
#ifndef CAIRN_KERNELS_CPU_PRODUCTS_H_
#define CAIRN_KERNELS_CPU_PRODUCTS_H_

#include <cstdint>

#include "kernels/cpu/packed_matrix.h"

namespace cairn::kernels {

// y = W x, with W as plain numbers: code for AVX-512 calls no inline function of another file.
struct Product {
  WeightFormat format;
  int64_t n, k;
  const uint8_t* values;
  int64_t panel_bytes;
  const uint8_t* scales;
  int64_t panel_scales;
  const float* x;
  int64_t ldx;
  float* y;
  int64_t ldy;
};

Product ProductOf(const PackedMatrix& w, const float* x, int64_t ldx, float* y, int64_t ldy);

// Some rows against some panels.
struct Task {
  int64_t row_begin, rows;
  int64_t panel_begin, panels;
};

// What many_rows takes at most, and room for it.
inline constexpr int64_t kRowsPerTask = 192;
inline constexpr int64_t kPanelsPerTask = 8;
// Values of k that one pass takes: a panel's, decoded, stay in the first-level cache, and the rows'
// in the second with the sums of all panels of a task.
inline constexpr int64_t kSlab = 256;

struct Scratch {
  alignas(64) float x[kRowsPerTask * kSlab];
  alignas(64) float w[kSlab * PackedMatrix::kPanel];
  alignas(64) float sums[kPanelsPerTask * kRowsPerTask * PackedMatrix::kPanel];
};

struct Products {
  // Up to how many rows few_rows is the faster way, by WeightFormat.
  int64_t few_rows_max[4];
  // Rows that many_rows takes side by side.
  int64_t tile_rows;
  void (*few_rows)(const Product& product, const Task& task);
  void (*many_rows)(const Product& product, const Task& task, Scratch& scratch);
  // PanelMultiply.
  void (*panel)(const float* panel, int64_t count, const float* x, int64_t ldx, int64_t m, float* y,
                int64_t ldy);
  // PairLinear, of FP8 and FP4, with pair_rows_tile rows side by side.
  int64_t pair_rows_tile;
  void (*pair_rows)(const Product& product, const Task& task, Scratch& scratch);
};

Products Avx2Products();
// REQUIRES: HasCpuPath(CpuPath::kAvx512) where its functions are called.
Products Avx512Products();

}  // namespace cairn::kernels

#endif  // CAIRN_KERNELS_CPU_PRODUCTS_H_
