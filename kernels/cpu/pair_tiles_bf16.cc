// PairLinear's loops with AVX-512's VDPBF16PS: two products and two sums, one after the other, of
// 16 outputs. Compiled for x86-64-v4 with VBMI and BF16, and called only where the processor has
// those. Uses no inline function of another file, for the reason that products_avx512.cc has; the
// test check_avx512 looks here too.
//
// The instruction adds the upper halves' product first, then the lower ones', and takes and makes
// subnormal numbers as zeros whatever MXCSR says. So where a pair is two k of the same parity it
// makes two steps of linear.h's order.
#include <immintrin.h>

#include <cstdint>
#include <utility>

#include "kernels/cpu/bf16_pairs.h"
#include "kernels/cpu/pair_tiles.h"
#include "kernels/cpu/vector_loops.h"

namespace cairn::kernels {
namespace {

constexpr PairOrder kOrder = PairOrder::kSameParity;
// Rows side by side with one panel: with two sums each as many as there are registers for, and
// enough to hide the instruction's latency.
constexpr int kPassRows = 8;
static_assert(kTileRows % kPassRows == 0);
// Tiles of k, and panels, that one pass takes with more rows: few, so that decoding them and their
// products overlap.
constexpr int64_t kSlabTiles = 4, kSlabPanels = 2;
constexpr int64_t kTilePairs = kTileKs / 2;

// Adds two products to each sum; x: the pair of one row.
[[gnu::always_inline]] inline __m512 AddPair(__m512 sum, const uint16_t* x, __m512i w) {
  int pair = 0;
  __builtin_memcpy(&pair, x, sizeof(pair));
  return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_set1_epi32(pair), (__m512bh)w);
}

// The two sums of each row and output over one tile of k.
template <int kRows, int kPanels>
struct TileSums {
  __m512 even[kRows][kPanels], odd[kRows][kPanels];

  [[gnu::always_inline]] TileSums() {
    Unrolled<kRows * kPanels>([&](auto i) __attribute__((always_inline)) {
      even[i / kPanels][i % kPanels] = odd[i / kPanels][i % kPanels] = _mm512_setzero_ps();
    });
  }
  // Vector `pair` of a step, of each panel, with the rows' pairs at x.
  template <int pair>
  [[gnu::always_inline]] void Add(const uint16_t* x, const __m512i (&w)[kPanels]) {
    Unrolled<kRows * kPanels>([&](auto i) __attribute__((always_inline)) {
      __m512& sum = (pair % 2 == 0 ? even : odd)[i / kPanels][i % kPanels];
      sum = AddPair(sum, x + i / kPanels * kTileKs, w[i % kPanels]);
    });
  }
  [[gnu::always_inline]] __m512 Of(int row, int panel) const {
    return _mm512_add_ps(even[row][panel], odd[row][panel]);
  }
};

// At most kPassRows rows with kPanels panels side by side: weights are decoded in registers, and
// the sums of whole tiles lie in `sums`, as registers are for the tile's.
template <WeightFormat format, int kRows, int kPanels>
void OnePass(const Product& a, const uint16_t* rows, int64_t panel, float* sums) {
  using D = PairDecoder<format, kOrder>;
  Unrolled<kRows * kPanels>([&](auto i) __attribute__((always_inline)) {
    constexpr int r = i / kPanels, p = i % kPanels;
    _mm512_storeu_ps(sums + p * kPanelStep + r * kPanel, _mm512_setzero_ps());
  });
  const uint8_t* from = a.values + panel * a.panel_bytes;
  const uint8_t* const e8m0 = a.scales + panel * a.panel_scales;
  for (int64_t i = 0; i < a.k / kTileKs; ++i) {
    __m512i scales[kPanels];
    Unrolled<kPanels>([&](auto p) __attribute__((always_inline)) {
      scales[p] = D::Scales(e8m0 + p * a.panel_scales + i / D::kGroupTiles * kPanel);
    });
    TileSums<kRows, kPanels> tile;
    for (const uint8_t* const end = from + D::kBytes; from < end; from += D::kStepBytes) {
      typename D::Step steps[kPanels];
      Unrolled<kPanels>([&](auto p) __attribute__((always_inline)) {
        steps[p] = D::Load(from + p * a.panel_bytes);
      });
      Unrolled<D::kPairs>([&](auto pair) __attribute__((always_inline)) {
        __m512i w[kPanels];
        Unrolled<kPanels>([&](auto p) __attribute__((always_inline)) {
          w[p] = D::template Pair<pair>(steps[p], scales[p]);
        });
        tile.template Add<pair>(rows + 2 * pair, w);
      });
      rows += 2 * D::kPairs;
    }
    rows += kTileValues - kTileKs;
    Unrolled<kRows * kPanels>([&](auto j) __attribute__((always_inline)) {
      constexpr int r = j / kPanels, p = j % kPanels;
      float* const sum = sums + p * kPanelStep + r * kPanel;
      _mm512_storeu_ps(sum, _mm512_add_ps(_mm512_loadu_ps(sum), tile.Of(r, p)));
    });
  }
}

// Weights of some panels that will be decoded next, asked for in equal parts.
struct Ahead {
  const uint8_t* from;
  int64_t panel_bytes, panels;
  // Of each panel.
  int64_t bytes, part;

  [[gnu::always_inline]] void Ask() {
    for (const int64_t end = bytes - part; bytes > end && bytes > 0; bytes -= 64, from += 64) {
      for (int64_t p = 0; p < panels; ++p) _mm_prefetch(from + p * panel_bytes, _MM_HINT_T0);
    }
  }
};

// What follows panel `panel` of a task and tile `begin`: the next panels, or the next slab.
template <WeightFormat format>
Ahead NextOf(const Product& a, const Task& task, int64_t panel, int64_t begin) {
  using D = PairDecoder<format, kOrder>;
  if (panel == task.panels) {
    panel = 0;
    begin += kSlabTiles;
  }
  const int64_t tiles = Smaller(kSlabTiles, a.k / kTileKs - begin);
  return {a.values + (task.panel_begin + panel) * a.panel_bytes + begin * D::kBytes, a.panel_bytes,
          Smaller(kSlabPanels, task.panels - panel), tiles * D::kBytes, 0};
}

// kRows rows of a row tile with kPanels panels, over `count` tiles of k that were decoded to `w`,
// added to `sums`. Meanwhile the memory is asked for what is decoded next.
template <int kRows, int kPanels>
void SlabPass(const uint16_t* w, int64_t count, const uint16_t* rows, float* sums, Ahead& ahead) {
  __m512 total[kRows][kPanels];
  Unrolled<kRows * kPanels>([&](auto i) __attribute__((always_inline)) {
    constexpr int r = i / kPanels, p = i % kPanels;
    total[r][p] = _mm512_loadu_ps(sums + p * kPanelStep + r * kPanel);
  });
  for (int64_t i = 0; i < count; ++i, w += kTileValues, rows += kTileValues) {
    ahead.Ask();
    TileSums<kRows, kPanels> tile;
    for (int64_t j = 0; j < kTilePairs; j += 2) {
      Unrolled<2>([&](auto pair) __attribute__((always_inline)) {
        __m512i panels[kPanels];
        Unrolled<kPanels>([&](auto p) __attribute__((always_inline)) {
          panels[p] = LoadBits(w + p * kSlabTiles * kTileValues + (j + pair) * 32);
        });
        tile.template Add<pair>(rows + 2 * (j + pair), panels);
      });
    }
    Unrolled<kRows * kPanels>([&](auto k) __attribute__((always_inline)) {
      constexpr int r = k / kPanels, p = k % kPanels;
      total[r][p] = _mm512_add_ps(total[r][p], tile.Of(r, p));
    });
  }
  Unrolled<kRows * kPanels>([&](auto i) __attribute__((always_inline)) {
    constexpr int r = i / kPanels, p = i % kPanels;
    _mm512_storeu_ps(sums + p * kPanelStep + r * kPanel, total[r][p]);
  });
}

template <WeightFormat format, int kRows>
void FewRowsOf(const Product& a, const uint16_t* rows, const Task& task, Scratch& scratch) {
  constexpr int kSide = kRows <= 2 ? 4 : kRows <= 5 ? 2 : 1;
  int64_t p = 0;
  for (; p + kSide <= task.panels; p += kSide) {
    OnePass<format, kRows, kSide>(a, rows, task.panel_begin + p, scratch.sums + p * kPanelStep);
  }
  for (; p < task.panels; ++p) {
    OnePass<format, kRows, 1>(a, rows, task.panel_begin + p, scratch.sums + p * kPanelStep);
  }
}

template <WeightFormat format, int... kRows>
void RowsOf(const Product& a, const uint16_t* rows, const Task& task, Scratch& scratch,
            std::integer_sequence<int, kRows...>) {
  // Two panels side by side share what is loaded of rows, with half as many of these.
  constexpr int kHalf = kPassRows / 2;
  using Pass = void (*)(const uint16_t*, int64_t, const uint16_t*, float*, Ahead&);
  static constexpr Pass kPasses[kSlabPanels][kPassRows] = {{SlabPass<kRows + 1, 1>...},
                                                           {SlabPass<kRows % kHalf + 1, 2>...}};
  if (task.rows <= kPassRows) {
    using Few = void (*)(const Product&, const uint16_t*, const Task&, Scratch&);
    static constexpr Few kFew[] = {FewRowsOf<format, kRows + 1>...};
    return kFew[task.rows - 1](a, rows, task, scratch);
  }
  static_assert(sizeof(scratch.w) >= kSlabPanels * kSlabTiles * kTileValues * sizeof(uint16_t));
  uint16_t* const room = reinterpret_cast<uint16_t*>(scratch.w);
  for (int64_t p = 0; p < task.panels; ++p) {
    __builtin_memset(scratch.sums + p * kPanelStep, 0,
                     static_cast<size_t>(task.rows * kPanel) * sizeof(float));
  }
  for (int64_t begin = 0; begin < a.k / kTileKs; begin += kSlabTiles) {
    const int64_t count = Smaller(kSlabTiles, a.k / kTileKs - begin);
    for (int64_t p = 0; p < task.panels; p += kSlabPanels) {
      const int64_t panels = Smaller(kSlabPanels, task.panels - p);
      for (int64_t side = 0; side < panels; ++side) {
        for (int64_t i = 0; i < count; ++i) {
          DecodeTile<format, kOrder>(a, task.panel_begin + p + side, begin + i,
                                     room + (side * kSlabTiles + i) * kTileValues);
        }
      }
      const int64_t step = panels == 1 ? kPassRows : kHalf;
      Ahead ahead = NextOf<format>(a, task, p + panels, begin);
      ahead.part = CeilDiv(ahead.bytes, 64 * count * CeilDiv(task.rows, step)) * 64;
      for (int64_t r = 0; r < task.rows; r += step) {
        const int64_t offset = r / kTileRows * kTileRows * a.k + begin * kTileValues;
        kPasses[panels - 1][Smaller(step, task.rows - r) - 1](
            room, count, rows + offset + r % kTileRows * kTileKs,
            scratch.sums + p * kPanelStep + r * kPanel, ahead);
      }
    }
  }
}

void Rows(const Product& a, const uint16_t* tiles, const Task& task, Scratch& scratch) {
  constexpr auto kRows = std::make_integer_sequence<int, kPassRows>();
  const uint16_t* rows = tiles + task.row_begin * a.k;
  const unsigned int before = _mm_getcsr();
  SetMxcsr(before | kNoSubnormals);
  switch (a.format) {
    case WeightFormat::kF32:  // takes no pairs
      break;
    case WeightFormat::kBf16:
      RowsOf<WeightFormat::kBf16>(a, rows, task, scratch, kRows);
      break;
    case WeightFormat::kFp8:
      RowsOf<WeightFormat::kFp8>(a, rows, task, scratch, kRows);
      break;
    case WeightFormat::kFp4:
      RowsOf<WeightFormat::kFp4>(a, rows, task, scratch, kRows);
      break;
  }
  SetMxcsr(before);
  CopySums(a, task, task.panel_begin, task.panels, scratch.sums);
}

}  // namespace

PairTiles Bf16PairTiles() { return {PackPairs<kOrder>, Rows}; }

}  // namespace cairn::kernels
