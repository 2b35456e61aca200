// many_rows.h: Linear for many rows: a panel's slab is decoded into the first-level cache and
// multiplied with tiles of rows that were copied together. For products_*.cc (vector_loops.h).
//
// Threads: pure functions. Orders and shapes: linear.h.
#ifndef CAIRN_KERNELS_CPU_MANY_ROWS_H_
#define CAIRN_KERNELS_CPU_MANY_ROWS_H_

#include <cstdint>
#include <cstring>
#include <utility>

#include "kernels/cpu/products.h"
#include "kernels/cpu/vector_loops.h"
#include "kernels/cpu/weight_chunks.h"

namespace cairn::kernels {
namespace {

// Sums y [kRows][16] over `count` values of k: continued, or (kScaled) made from 0 and added scaled
// to y.
template <typename V, bool kScaled, int kRows>
[[gnu::always_inline]] inline void Tile(const float* panel, int64_t count, const float* x,
                                        int64_t ldx, float* y, int64_t ldy,
                                        typename V::Floats scales) {
  typename V::Floats acc[kRows];
  Unrolled<kRows>([&](auto r) __attribute__((always_inline)) {
    acc[r] = kScaled ? V::Zero() : V::Load(y + r * ldy);
  });
  for (const float* end = panel + count * kPanel; panel < end; panel += kPanel, ++x) {
    const typename V::Floats w = V::Load(panel);
    Unrolled<kRows>([&](auto r) __attribute__((always_inline)) {
      acc[r] = V::Fma(V::Splat(x + r * ldx), w, acc[r]);
    });
  }
  Unrolled<kRows>([&](auto r) __attribute__((always_inline)) {
    if constexpr (kScaled) acc[r] = V::Fma(acc[r], scales, V::Load(y + r * ldy));
    V::Store(y + r * ldy, acc[r]);
  });
}

// Rows that lie as Scratch has them: strides that are constants need no registers.
template <typename V, bool kScaled, int kRows>
void SlabTile(const float* panel, int64_t count, const float* x, float* sums,
              typename V::Floats scales) {
  Tile<V, kScaled, kRows>(panel, count, x, kSlab, sums, kPanel, scales);
}

template <typename V, bool kScaled, int... kRows>
void SlabTiles(const float* panel, int64_t count, const float* x, int64_t m, float* sums,
               typename V::Floats scales, std::integer_sequence<int, kRows...>) {
  using TileOf = void (*)(const float*, int64_t, const float*, float*, typename V::Floats);
  static constexpr TileOf kTiles[] = {SlabTile<V, kScaled, kRows + 1>...};
  InParts(m, V::kTileRows, [&](int64_t row, int64_t rows) {
    kTiles[rows - 1](panel, count, x + row * kSlab, sums + row * kPanel, scales);
  });
}

// Values of a panel from k_begin on as [count][16], those of FP4 without their scales. Returns
// `room` or, where nothing is to be decoded, the panel itself. k_begin is a multiple of kSlab.
template <typename V, WeightFormat format>
const float* DecodeSlab(const Product& a, int64_t panel, int64_t k_begin, int64_t count,
                        float* room) {
  using C = Chunks<format>;
  using D = typename V::template Decoder<format>;
  const uint8_t* from = a.values + panel * a.panel_bytes + k_begin / C::kKs * C::kBytes;
  if constexpr (format == WeightFormat::kF32) {
    return reinterpret_cast<const float*>(from);
  } else {
    constexpr int64_t kGroup = C::kGroup > 0 && C::kScaleInWeight ? C::kGroup : kSlab;
    static_assert(kSlab % kGroup == 0);
    float* to = room;
    for (int64_t k = 0; k < count; k += kGroup) {
      typename V::Floats scales = V::Zero();
      if constexpr (C::kGroup > 0) {
        scales = D::Scales(a.scales + panel * a.panel_scales + (k_begin + k) / C::kGroup * kPanel);
      }
      const int64_t end = Smaller(count, k + kGroup);
      for (int64_t i = k; i < end; i += C::kKs, from += C::kBytes, to += C::kKs * kPanel) {
        Unrolled<D::kParts>([&](auto part) __attribute__((always_inline)) {
          constexpr int kPartKs = C::kKs / D::kParts;
          typename V::Floats values[kPartKs];
          D::Decode(from, part, scales, values);
          Unrolled<kPartKs>([&](auto v) __attribute__((always_inline)) {
            V::Store(to + (part * kPartKs + v) * kPanel, values[v]);
          });
        });
      }
    }
    return room;
  }
}

template <typename V, WeightFormat format>
void MultiplySlab(const Product& a, const Task& task, int64_t k, int64_t count, Scratch& scratch) {
  using C = Chunks<format>;
  constexpr auto kRows = std::make_integer_sequence<int, V::kTileRows>();
  for (int64_t p = 0; p < task.panels; ++p) {
    float* sums = scratch.sums + p * kRowsPerTask * kPanel;
    const int64_t panel = task.panel_begin + p;
    const float* values = DecodeSlab<V, format>(a, panel, k, count, scratch.w);
    if constexpr (C::kScaleInWeight) {
      SlabTiles<V, false>(values, count, scratch.x, task.rows, sums, V::Zero(), kRows);
    } else {
      for (int64_t g = 0; g < count; g += C::kGroup) {
        const typename V::Floats scales = V::template Decoder<format>::Scales(
            a.scales + panel * a.panel_scales + (k + g) / C::kGroup * kPanel);
        SlabTiles<V, true>(values + g * kPanel, C::kGroup, scratch.x + g, task.rows, sums, scales,
                           kRows);
      }
    }
  }
}

// y of a task: calls multiply(k, count) for each slab, with its rows in scratch.x, to add to
// scratch.sums.
template <typename Multiply>
void SlabBySlab(const Product& a, const Task& task, Scratch& scratch, Multiply multiply) {
  for (int64_t p = 0; p < task.panels; ++p) {
    std::memset(scratch.sums + p * kRowsPerTask * kPanel, 0,
                static_cast<size_t>(task.rows * kPanel) * sizeof(float));
  }
  for (int64_t k = 0; k < a.k; k += kSlab) {
    const int64_t count = Smaller(kSlab, a.k - k);
    for (int64_t r = 0; r < task.rows; ++r) {
      std::memcpy(scratch.x + r * kSlab, a.x + (task.row_begin + r) * a.ldx + k,
                  static_cast<size_t>(count) * sizeof(float));
    }
    multiply(k, count);
  }
  for (int64_t r = 0; r < task.rows; ++r) {
    for (int64_t p = 0; p < task.panels; ++p) {
      const int64_t column = (task.panel_begin + p) * kPanel;
      const int64_t columns = Smaller(kPanel, a.n - column);
      std::memcpy(a.y + (task.row_begin + r) * a.ldy + column,
                  scratch.sums + (p * kRowsPerTask + r) * kPanel,
                  static_cast<size_t>(columns) * sizeof(float));
    }
  }
}

template <typename V, WeightFormat format>
void ManyRowsOf(const Product& a, const Task& task, Scratch& scratch) {
  SlabBySlab(a, task, scratch, [&](int64_t k, int64_t count) {
    MultiplySlab<V, format>(a, task, k, count, scratch);
  });
}

template <typename V>
void ManyRows(const Product& a, const Task& task, Scratch& scratch) {
  switch (a.format) {
    case WeightFormat::kF32:
      return ManyRowsOf<V, WeightFormat::kF32>(a, task, scratch);
    case WeightFormat::kBf16:
      return ManyRowsOf<V, WeightFormat::kBf16>(a, task, scratch);
    case WeightFormat::kFp8:
      return ManyRowsOf<V, WeightFormat::kFp8>(a, task, scratch);
    case WeightFormat::kFp4:
      return ManyRowsOf<V, WeightFormat::kFp4>(a, task, scratch);
  }
}

// PanelMultiply: a tile for each count of rows, whose strides are the caller's.
template <typename V, int kRows>
void PanelTile(const float* panel, int64_t count, const float* x, int64_t ldx, float* y,
               int64_t ldy) {
  Tile<V, false, kRows>(panel, count, x, ldx, y, ldy, V::Zero());
}

template <typename V, int... kRows>
void PanelTiles(const float* panel, int64_t count, const float* x, int64_t ldx, int64_t m, float* y,
                int64_t ldy, std::integer_sequence<int, kRows...>) {
  using TileOf = void (*)(const float*, int64_t, const float*, int64_t, float*, int64_t);
  static constexpr TileOf kTiles[] = {PanelTile<V, kRows + 1>...};
  InParts(m, V::kPanelRows, [&](int64_t row, int64_t rows) {
    kTiles[rows - 1](panel, count, x + row * ldx, ldx, y + row * ldy, ldy);
  });
}

template <typename V>
void Panel(const float* panel, int64_t count, const float* x, int64_t ldx, int64_t m, float* y,
           int64_t ldy) {
  PanelTiles<V>(panel, count, x, ldx, m, y, ldy, std::make_integer_sequence<int, V::kPanelRows>());
}

}  // namespace
}  // namespace cairn::kernels

#endif  // CAIRN_KERNELS_CPU_MANY_ROWS_H_
