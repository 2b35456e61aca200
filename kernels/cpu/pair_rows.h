// pair_rows.h: PairLinear (linear.h) without AMX: a panel's slab is decoded as many_rows.h does it,
// and each row has two sums an output. For products_*.cc (vector_loops.h).
//
// Threads: pure functions, which leave MXCSR as it was. Orders and shapes: linear.h.
#ifndef CAIRN_KERNELS_CPU_PAIR_ROWS_H_
#define CAIRN_KERNELS_CPU_PAIR_ROWS_H_

#include <immintrin.h>

#include <cstdint>
#include <cstring>
#include <utility>

#include "kernels/cpu/many_rows.h"
#include "kernels/cpu/products.h"
#include "kernels/cpu/vector_loops.h"

namespace cairn::kernels {
namespace {

constexpr int64_t kPairGroup = 32;

// Inputs as PairLinear takes them: subnormal numbers as zeros, others rounded to BF16, to nearest
// even.
inline void RoundInputs(float* x, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    uint32_t bits;
    std::memcpy(&bits, x + i, sizeof(bits));
    const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
    bits = (bits & 0x7f800000) == 0 ? bits & 0x80000000 : rounded;
    std::memcpy(x + i, &bits, sizeof(bits));
  }
}

// Decoded weights, scaled if they are not yet, with each zero as -0. REQUIRES: none subnormal.
template <typename V, bool kScaled>
void FinishSlab(float* w, int64_t count, typename V::Floats scales) {
  for (float* const end = w + count * kPanel; w < end; w += kPanel) {
    const typename V::Floats v = V::Load(w);
    V::Store(w, V::NegativeZeros(kScaled ? V::Fma(v, scales, V::Zero()) : v));
  }
}

template <typename V, int kRows>
void PairTile(const float* w, int64_t count, const float* x, float* sums) {
  for (int64_t k = 0; k < count; k += kPairGroup, w += kPairGroup * kPanel, x += kPairGroup) {
    typename V::Floats even[kRows], odd[kRows];
    Unrolled<kRows>([&](auto r) __attribute__((always_inline)) {
      even[r] = V::Zero();
      odd[r] = V::Zero();
    });
    for (int64_t i = 0; i < kPairGroup; i += 2) {
      const typename V::Floats first = V::Load(w + i * kPanel);
      const typename V::Floats second = V::Load(w + (i + 1) * kPanel);
      Unrolled<kRows>([&](auto r) __attribute__((always_inline)) {
        even[r] = V::Fma(V::Splat(x + r * kSlab + i), first, even[r]);
        odd[r] = V::Fma(V::Splat(x + r * kSlab + i + 1), second, odd[r]);
      });
    }
    Unrolled<kRows>([&](auto r) __attribute__((always_inline)) {
      float* sum = sums + r * kPanel;
      V::Store(sum, V::Add(V::Load(sum), V::Add(even[r], odd[r])));
    });
  }
}

template <typename V, int... kRows>
void PairTiles(const float* w, int64_t count, const float* x, int64_t m, float* sums,
               std::integer_sequence<int, kRows...>) {
  using TileOf = void (*)(const float*, int64_t, const float*, float*);
  static constexpr TileOf kTiles[] = {PairTile<V, kRows + 1>...};
  const unsigned int before = _mm_getcsr();
  SetMxcsr(before | kNoSubnormals);
  InParts(m, V::kPairRows, [&](int64_t row, int64_t rows) {
    kTiles[rows - 1](w, count, x + row * kSlab, sums + row * kPanel);
  });
  SetMxcsr(before);
}

template <typename V, WeightFormat format>
void PairSlab(const Product& a, const Task& task, int64_t k, int64_t count, Scratch& scratch) {
  using C = Chunks<format>;
  for (int64_t p = 0; p < task.panels; ++p) {
    const int64_t panel = task.panel_begin + p;
    DecodeSlab<V, format>(a, panel, k, count, scratch.w);
    if constexpr (C::kGroup == 0) {
      // BF16: as stored.
    } else if constexpr (C::kScaleInWeight) {
      FinishSlab<V, false>(scratch.w, count, V::Zero());
    } else {
      for (int64_t g = 0; g < count; g += C::kGroup) {
        const uint8_t* e8m0 = a.scales + panel * a.panel_scales + (k + g) / C::kGroup * kPanel;
        FinishSlab<V, true>(scratch.w + g * kPanel, C::kGroup,
                            V::template Decoder<format>::Scales(e8m0));
      }
    }
    PairTiles<V>(scratch.w, count, scratch.x, task.rows, scratch.sums + p * kRowsPerTask * kPanel,
                 std::make_integer_sequence<int, V::kPairRows>());
  }
}

template <typename V>
void PairRows(const Product& a, const Task& task, Scratch& scratch) {
  SlabBySlab(a, task, scratch, [&](int64_t k, int64_t count) {
    for (int64_t r = 0; r < task.rows; ++r) RoundInputs(scratch.x + r * kSlab, count);
    switch (a.format) {
      case WeightFormat::kF32:  // takes no pairs
        break;
      case WeightFormat::kBf16:
        return PairSlab<V, WeightFormat::kBf16>(a, task, k, count, scratch);
      case WeightFormat::kFp8:
        return PairSlab<V, WeightFormat::kFp8>(a, task, k, count, scratch);
      case WeightFormat::kFp4:
        return PairSlab<V, WeightFormat::kFp4>(a, task, k, count, scratch);
    }
  });
}

}  // namespace
}  // namespace cairn::kernels

#endif  // CAIRN_KERNELS_CPU_PAIR_ROWS_H_
