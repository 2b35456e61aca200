#include "kernels/cpu/few_rows.h"

#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <utility>

#include "kernels/cpu/weight_chunks.h"

namespace cairn::kernels {
namespace {

constexpr int kPanel = PackedMatrix::kPanel;

// Calls body(0), ..., body(n - 1) with constants. The compiler splits arrays into registers before
// it unrolls nested loops, so sums indexed by such loops would be stored at every step.
template <int n, typename Body>
[[gnu::always_inline]] inline void Unrolled(Body body) {
  [&]<int... i>(std::integer_sequence<int, i...>) __attribute__((always_inline)) {
    (body(std::integral_constant<int, i>()), ...);
  }
  (std::make_integer_sequence<int, n>());
}

// How far ahead of its use a panel is asked for. Panels side by side are several streams, each of
// which the processor's own prefetching loses at every page.
constexpr int64_t kAhead = 1024;

template <int kRows, int kPanels>
using Sums = __m256[kRows][kPanels][2];

// The next chunk of kPanels panels, of which the first kKs values of k count.
template <WeightFormat format, int kKs, int kRows, int kPanels>
[[gnu::always_inline]] inline void AddChunk(const uint8_t* from, int64_t stride,
                                            const PanelScales (&scales)[kPanels], const float* x,
                                            int64_t ldx, Sums<kRows, kPanels>& acc) {
  using C = Chunks<format>;
  constexpr int kPartKs = C::kKs / C::kParts;
  Unrolled<C::kParts>([&](auto part) __attribute__((always_inline)) {
    Unrolled<kPanels>([&](auto p) __attribute__((always_inline)) {
      if constexpr (part == 0) _mm_prefetch(from + p * stride + kAhead, _MM_HINT_T0);
      __m256 w[2 * kPartKs];
      C::Decode(from + p * stride, part, scales[p], w);
      Unrolled<std::min(kPartKs, kKs - part * kPartKs)>([&](auto i) __attribute__((always_inline)) {
        Unrolled<kRows>([&](auto r) __attribute__((always_inline)) {
          const __m256 v = _mm256_broadcast_ss(x + r * ldx + part * kPartKs + i);
          acc[r][p][0] = _mm256_fmadd_ps(v, w[2 * i], acc[r][p][0]);
          acc[r][p][1] = _mm256_fmadd_ps(v, w[2 * i + 1], acc[r][p][1]);
        });
      });
    });
  });
}

// `count` values of k that share their scales, added to the sums.
template <WeightFormat format, int kRows, int kPanels>
[[gnu::always_inline]] inline void AddGroup(const uint8_t* from, int64_t stride,
                                            const PanelScales (&scales)[kPanels], int64_t count,
                                            const float* x, int64_t ldx,
                                            float (&sums)[kRows][kPanels][kPanel]) {
  using C = Chunks<format>;
  Sums<kRows, kPanels> acc;
  Unrolled<kRows * kPanels>([&](auto i) __attribute__((always_inline)) {
    constexpr int r = i / kPanels, p = i % kPanels;
    const float* sum = sums[r][p];
    acc[r][p][0] = C::kScaleInWeight ? _mm256_load_ps(sum) : _mm256_setzero_ps();
    acc[r][p][1] = C::kScaleInWeight ? _mm256_load_ps(sum + 8) : _mm256_setzero_ps();
  });
  const float* end = x + count / C::kKs * C::kKs;
  for (; x < end; x += C::kKs, from += C::kBytes) {
    AddChunk<format, C::kKs, kRows>(from, stride, scales, x, ldx, acc);
  }
  if constexpr (format == WeightFormat::kFp8) {
    static_assert(C::kKs == 2);
    if (count % C::kKs != 0) AddChunk<format, 1, kRows>(from, stride, scales, x, ldx, acc);
  }
  Unrolled<kRows * kPanels>([&](auto i) __attribute__((always_inline)) {
    constexpr int r = i / kPanels, p = i % kPanels;
    float* sum = sums[r][p];
    if constexpr (!C::kScaleInWeight) {
      acc[r][p][0] = _mm256_fmadd_ps(acc[r][p][0], scales[p].low, _mm256_load_ps(sum));
      acc[r][p][1] = _mm256_fmadd_ps(acc[r][p][1], scales[p].high, _mm256_load_ps(sum + 8));
    }
    _mm256_store_ps(sum, acc[r][p][0]);
    _mm256_store_ps(sum + 8, acc[r][p][1]);
  });
}

// kRows rows against kPanels panels side by side: enough sums in flight to hide an fma's latency,
// no more than there are registers.
template <WeightFormat format, int kRows, int kPanels>
void Multiply(const PackedMatrix& w, int64_t panel, const float* x, int64_t ldx, float* y,
              int64_t ldy) {
  using C = Chunks<format>;
  const uint8_t* from = w.panel(panel);
  PanelScales scales[kPanels];
  alignas(32) float sums[kRows][kPanels][kPanel] = {};
  const int64_t group = C::kGroup > 0 ? C::kGroup : w.k();
  for (int64_t k = 0; k < w.k(); k += group) {
    if constexpr (C::kGroup > 0) {
      for (int p = 0; p < kPanels; ++p) {
        scales[p] = C::Scales(w.panel_scales(panel + p) + k / group * kPanel);
      }
    }
    AddGroup<format, kRows>(from + k / C::kKs * C::kBytes, w.panel_bytes(), scales,
                            std::min(group, w.k() - k), x + k, ldx, sums);
  }
  for (int r = 0; r < kRows; ++r) {
    for (int p = 0; p < kPanels; ++p) {
      const int64_t columns = std::min<int64_t>(kPanel, w.n() - (panel + p) * kPanel);
      std::memcpy(y + r * ldy + (panel + p) * kPanel, sums[r][p],
                  static_cast<size_t>(columns) * sizeof(float));
    }
  }
}

template <WeightFormat format, int kRows, int kPanels>
void Panels(const PackedMatrix& w, int64_t begin, int64_t end, const float* x, int64_t ldx,
            float* y, int64_t ldy) {
  for (; begin + kPanels <= end; begin += kPanels) {
    Multiply<format, kRows, kPanels>(w, begin, x, ldx, y, ldy);
  }
  for (; begin < end; ++begin) Multiply<format, kRows, 1>(w, begin, x, ldx, y, ldy);
}

constexpr int64_t kRowsMax = 6;

// REQUIRES: 1 <= m <= kRowsMax.
template <WeightFormat format>
void Rows(const PackedMatrix& w, int64_t begin, int64_t end, const float* x, int64_t ldx, int64_t m,
          float* y, int64_t ldy) {
  switch (m) {
    case 1:
      return Panels<format, 1, 4>(w, begin, end, x, ldx, y, ldy);
    case 2:
      return Panels<format, 2, 2>(w, begin, end, x, ldx, y, ldy);
    case 3:
      return Panels<format, 3, 2>(w, begin, end, x, ldx, y, ldy);
    case 4:
      return Panels<format, 4, 1>(w, begin, end, x, ldx, y, ldy);
    case 5:
      return Panels<format, 5, 1>(w, begin, end, x, ldx, y, ldy);
    default:
      return Panels<format, 6, 1>(w, begin, end, x, ldx, y, ldy);
  }
}

// More rows than fit go in equal parts, all of them against a panel while it is in the cache.
template <WeightFormat format>
void AllRows(const PackedMatrix& w, int64_t begin, int64_t end, const float* x, int64_t ldx,
             int64_t m, float* y, int64_t ldy) {
  if (m <= kRowsMax) return Rows<format>(w, begin, end, x, ldx, m, y, ldy);
  for (int64_t panel = begin; panel < end; ++panel) {
    int64_t row = 0;
    for (int64_t parts = (m + kRowsMax - 1) / kRowsMax; parts > 0; --parts) {
      const int64_t rows = (m - row + parts - 1) / parts;
      Rows<format>(w, panel, panel + 1, x + row * ldx, ldx, rows, y + row * ldy, ldy);
      row += rows;
    }
  }
}

}  // namespace

bool IsFewRows(WeightFormat format, int64_t m) {
  const bool decoded = format == WeightFormat::kFp8 || format == WeightFormat::kFp4;
  return m <= (decoded ? 4 * kRowsMax : 8 * kRowsMax);
}

void MultiplyFewRows(const PackedMatrix& w, int64_t begin, int64_t end, const float* x, int64_t ldx,
                     int64_t m, float* y, int64_t ldy) {
  switch (w.format()) {
    case WeightFormat::kF32:
      return AllRows<WeightFormat::kF32>(w, begin, end, x, ldx, m, y, ldy);
    case WeightFormat::kBf16:
      return AllRows<WeightFormat::kBf16>(w, begin, end, x, ldx, m, y, ldy);
    case WeightFormat::kFp8:
      return AllRows<WeightFormat::kFp8>(w, begin, end, x, ldx, m, y, ldy);
    case WeightFormat::kFp4:
      return AllRows<WeightFormat::kFp4>(w, begin, end, x, ldx, m, y, ldy);
  }
}

}  // namespace cairn::kernels
