// few_rows.h: Linear for so few rows that reading W is most of the work: weights are decoded in
// registers and multiplied at once. For products_*.cc (vector_loops.h).
//
// Threads: pure functions. Orders and shapes: linear.h.
#ifndef CAIRN_KERNELS_CPU_FEW_ROWS_H_
#define CAIRN_KERNELS_CPU_FEW_ROWS_H_

#include <immintrin.h>

#include <cstdint>
#include <cstring>
#include <utility>

#include "kernels/cpu/products.h"
#include "kernels/cpu/vector_loops.h"
#include "kernels/cpu/weight_chunks.h"

namespace cairn::kernels {
namespace {

// How far ahead of its use a panel is asked for. Panels side by side are several streams, each of
// which the processor's own prefetching loses at every page.
constexpr int64_t kAhead = 2048;

template <typename V, int kRows, int kPanels>
using Sums = typename V::Floats[kRows][kPanels];

// The next chunk of kPanels panels, of which the first kKs values of k count.
template <typename V, WeightFormat format, int kKs, int kRows, int kPanels>
[[gnu::always_inline]] inline void AddChunk(const uint8_t* from, int64_t stride,
                                            const typename V::Floats (&scales)[kPanels],
                                            const float* x, int64_t ldx,
                                            Sums<V, kRows, kPanels>& acc) {
  using D = typename V::template Decoder<format>;
  constexpr int kPartKs = Chunks<format>::kKs / D::kParts;
  Unrolled<D::kParts>([&](auto part) __attribute__((always_inline)) {
    Unrolled<kPanels>([&](auto p) __attribute__((always_inline)) {
      if constexpr (part == 0) _mm_prefetch(from + p * stride + kAhead, _MM_HINT_T0);
      typename V::Floats w[kPartKs];
      D::Decode(from + p * stride, part, scales[p], w);
      Unrolled<Smaller(kPartKs, kKs - part * kPartKs)>([&](auto i) __attribute__((always_inline)) {
        const float* at = x + part * kPartKs + i;
        // Hidden from the compiler's analysis of the loop, at + r * ldx takes a register for each
        // row; otherwise one for each row and k, most of them kept in memory.
        asm("" : "+r"(at));
        Unrolled<kRows>([&](auto r) __attribute__((always_inline)) {
          acc[r][p] = V::Fma(V::Splat(at + r * ldx), w[i], acc[r][p]);
        });
      });
    });
  });
}

// `count` values of k that share their scales, added to the sums.
template <typename V, WeightFormat format, int kRows, int kPanels>
[[gnu::always_inline]] inline void AddGroup(const uint8_t* from, int64_t stride,
                                            const typename V::Floats (&scales)[kPanels],
                                            int64_t count, const float* x, int64_t ldx,
                                            float (&sums)[kRows][kPanels][kPanel]) {
  using C = Chunks<format>;
  Sums<V, kRows, kPanels> acc;
  Unrolled<kRows * kPanels>([&](auto i) __attribute__((always_inline)) {
    constexpr int r = i / kPanels, p = i % kPanels;
    acc[r][p] = C::kScaleInWeight ? V::Load(sums[r][p]) : V::Zero();
  });
  const float* end = x + count / C::kKs * C::kKs;
  for (; x < end; x += C::kKs, from += C::kBytes) {
    AddChunk<V, format, C::kKs, kRows>(from, stride, scales, x, ldx, acc);
  }
  if constexpr (format == WeightFormat::kFp8) {
    static_assert(C::kKs == 2);
    if (count % C::kKs != 0) AddChunk<V, format, 1, kRows>(from, stride, scales, x, ldx, acc);
  }
  Unrolled<kRows * kPanels>([&](auto i) __attribute__((always_inline)) {
    constexpr int r = i / kPanels, p = i % kPanels;
    float* sum = sums[r][p];
    if constexpr (!C::kScaleInWeight) acc[r][p] = V::Fma(acc[r][p], scales[p], V::Load(sum));
    V::Store(sum, acc[r][p]);
  });
}

// kRows rows against kPanels panels side by side: enough sums in flight to hide an fma's latency,
// no more than there are registers.
template <typename V, WeightFormat format, int kRows, int kPanels>
void MultiplyPanels(const Product& a, int64_t row, int64_t panel) {
  using C = Chunks<format>;
  const float* x = a.x + row * a.ldx;
  const uint8_t* from = a.values + panel * a.panel_bytes;
  typename V::Floats scales[kPanels];
  alignas(64) float sums[kRows][kPanels][kPanel] = {};
  const int64_t group = C::kGroup > 0 ? C::kGroup : a.k;
  for (int64_t k = 0; k < a.k; k += group) {
    if constexpr (C::kGroup > 0) {
      for (int p = 0; p < kPanels; ++p) {
        scales[p] = V::template Decoder<format>::Scales(a.scales + (panel + p) * a.panel_scales +
                                                        k / group * kPanel);
      }
    }
    AddGroup<V, format, kRows>(from + k / C::kKs * C::kBytes, a.panel_bytes, scales,
                               Smaller(group, a.k - k), x + k, a.ldx, sums);
  }
  for (int r = 0; r < kRows; ++r) {
    for (int p = 0; p < kPanels; ++p) {
      const int64_t columns = Smaller(kPanel, a.n - (panel + p) * kPanel);
      std::memcpy(a.y + (row + r) * a.ldy + (panel + p) * kPanel, sums[r][p],
                  static_cast<size_t>(columns) * sizeof(float));
    }
  }
}

template <typename V, WeightFormat format, int kRows>
void FewRowsPart(const Product& a, int64_t row, int64_t begin, int64_t end) {
  constexpr int kPanels = V::Panels(format, kRows);
  for (; begin + kPanels <= end; begin += kPanels) {
    MultiplyPanels<V, format, kRows, kPanels>(a, row, begin);
  }
  if constexpr (kPanels > 1) {
    for (; begin < end; ++begin) MultiplyPanels<V, format, kRows, 1>(a, row, begin);
  }
}

// More rows than fit go in equal parts, all of them against a panel while it is in the cache.
template <typename V, WeightFormat format, int... kRows>
void FewRowsOf(const Product& a, const Task& task, std::integer_sequence<int, kRows...>) {
  using Part = void (*)(const Product&, int64_t, int64_t, int64_t);
  static constexpr Part kParts[] = {FewRowsPart<V, format, kRows + 1>...};
  const int64_t end = task.panel_begin + task.panels;
  const int64_t step = task.rows > V::kFewRows ? V::Panels(format, V::kFewRows) : task.panels;
  for (int64_t panel = task.panel_begin; panel < end; panel += step) {
    InParts(task.rows, V::kFewRows, [&](int64_t row, int64_t rows) {
      kParts[rows - 1](a, task.row_begin + row, panel, Smaller(panel + step, end));
    });
  }
}

template <typename V>
void FewRows(const Product& a, const Task& task) {
  constexpr auto kRows = std::make_integer_sequence<int, V::kFewRows>();
  switch (a.format) {
    case WeightFormat::kF32:
      return FewRowsOf<V, WeightFormat::kF32>(a, task, kRows);
    case WeightFormat::kBf16:
      return FewRowsOf<V, WeightFormat::kBf16>(a, task, kRows);
    case WeightFormat::kFp8:
      return FewRowsOf<V, WeightFormat::kFp8>(a, task, kRows);
    case WeightFormat::kFp4:
      return FewRowsOf<V, WeightFormat::kFp4>(a, task, kRows);
  }
}

}  // namespace
}  // namespace cairn::kernels

#endif  // CAIRN_KERNELS_CPU_FEW_ROWS_H_
