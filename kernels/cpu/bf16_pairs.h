// bf16_pairs.h: weights decoded and inputs packed as pairs of BF16 numbers, for pair_tiles_*.cc
// (vector_loops.h). Needs AVX-512 with VBMI and BF16.
//
// The packed formats have each pair of 16 outputs within 64 or, of BF16, 128 bytes, so 16 pairs are
// a few instructions on 16-bit lanes: of FP8 a permutation of bytes first; FP4's lie as kSameParity
// wants them (weight_chunks.h).
//
// Threads: pure functions.
#ifndef CAIRN_KERNELS_CPU_BF16_PAIRS_H_
#define CAIRN_KERNELS_CPU_BF16_PAIRS_H_

#include <immintrin.h>

#include <cstdint>
#include <limits>

#include "kernels/cpu/pair_tiles.h"
#include "kernels/cpu/products.h"
#include "kernels/cpu/vector_loops.h"
#include "kernels/cpu/weight_chunks.h"

// All that returns a vector is inlined, so no ABI is asked for one.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpsabi"

namespace cairn::kernels {
namespace {

constexpr int64_t kTileValues = kTileRows * kTileKs;
// How far ahead of their decoding weights are asked for. Before AMX those of FP4 leave the
// first-level cache too few misses at once, so they are first asked for into the second.
constexpr int64_t kAheadOfDecoding = 2048;
constexpr int64_t kFp4AheadOfAmx = 1024, kFp4FarAheadOfAmx = 8192, kFp4ScalesAhead = 512;

// What the two halves of 32 bits hold, the lower half first.
enum class PairOrder : uint8_t {
  kNeighbours,  // k and k + 1: pairs of k = 0, 2, 4, ...
  kSameParity,  // k + 2 and k: pairs of k = 0, 1, 4, 5, ...
};

// Which k of four a half of the `pair`th has.
constexpr int KOf(PairOrder order, int pair, int half) {
  return order == PairOrder::kNeighbours ? 2 * pair + half : pair + 2 * (1 - half);
}

// The byte of 64 in which each 16-bit lane's value lies, of output lane / 2 and the `pair`th.
// Outputs 1, 4 and 8 lie `one`, `four` and `eight` bytes after output 0, and k = 1, 2 and 3 as `ks`
// says.
struct ByteTable {
  alignas(64) uint8_t bytes[64] = {};
  constexpr ByteTable(PairOrder order, int pair, int one, int four, int eight, const int (&ks)[4]) {
    for (int lane = 0; lane < 32; ++lane) {
      const int output = lane / 2;
      const int byte = output % 4 * one + output / 4 % 2 * four + output / 8 * eight +
                       ks[KOf(order, pair, lane % 2)];
      bytes[2 * lane] = bytes[2 * lane + 1] = static_cast<uint8_t>(byte);
    }
  }
};

[[gnu::always_inline]] inline __m512i LoadBits(const void* p) { return _mm512_loadu_si512(p); }
[[gnu::always_inline]] inline __m512i Words(int v) {
  return _mm512_set1_epi16(static_cast<short>(v));
}

// e8m0 bytes of 16 outputs as exponents of BF16, for both lanes of each.
[[gnu::always_inline]] inline __m512i ScaleWords(const uint8_t* e8m0) {
  const __m512i v = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(e8m0)));
  return _mm512_or_si512(_mm512_slli_epi32(v, 7), _mm512_slli_epi32(v, 23));
}

// Of a tile of 32 k: kBytes, in steps of kStepBytes, each of which has kPairs vectors of 16
// outputs' pairs; kGroupTiles tiles share their scales.
template <WeightFormat format, PairOrder order>
struct PairDecoder;

template <PairOrder order>
struct PairDecoder<WeightFormat::kBf16, order> {
  static constexpr int kBytes = 1024, kStepBytes = 128, kPairs = 2;
  // There are no scales: those of the first tile, which nothing reads.
  static constexpr int64_t kGroupTiles = std::numeric_limits<int64_t>::max();

  static __m512i Scales(const uint8_t*) { return _mm512_setzero_si512(); }
  struct Step {
    __m512i first, second;  // of two k each
  };
  [[gnu::always_inline]] static Step Load(const uint8_t* from) {
    _mm_prefetch(from + kAheadOfDecoding, _MM_HINT_T0);
    _mm_prefetch(from + kAheadOfDecoding + 64, _MM_HINT_T0);
    return {LoadBits(from), LoadBits(from + 64)};
  }
  template <int pair>
  [[gnu::always_inline]] static __m512i Pair(const Step& step, __m512i) {
    static constexpr auto kWords = [] {
      struct {
        alignas(64) uint16_t words[32];
      } table = {};
      for (int lane = 0; lane < 32; ++lane) {
        const int64_t byte = KOf(order, pair, lane % 2) * Chunks<WeightFormat::kBf16>::kBytes +
                             PlaceOf(WeightFormat::kBf16, lane / 2, 0).byte;
        table.words[lane] = static_cast<uint16_t>(byte / 2);
      }
      return table;
    }();
    return _mm512_permutex2var_epi16(step.first, LoadBits(kWords.words), step.second);
  }
};

template <PairOrder order>
struct PairDecoder<WeightFormat::kFp8, order> {
  static constexpr int kBytes = 512, kStepBytes = 64, kGroupTiles = 4, kPairs = 2;

  // An e4m3 code moved into a BF16's exponent and mantissa is short of 120 in the exponent, which
  // goes with the scale.
  static __m512i Scales(const uint8_t* e8m0) {
    return _mm512_sub_epi16(ScaleWords(e8m0), Words(7 << 7));
  }
  static __m512i Normal(__m512i codes, __m512i scales) {
    const __m512i moved = _mm512_and_si512(_mm512_srai_epi16(codes, 4), Words(0x87f0));
    return _mm512_add_epi16(moved, scales);
  }
  // Codes with an exponent of 0 too: zeros, and multiples of 2^-9, normal numbers in BF16.
  [[gnu::noinline]] static __m512i Any(__m512i codes, __m512i scales) {
    const __m512i multiples = _mm512_broadcast_i32x4(
        _mm_sub_epi16(_mm_setr_epi16(0, 0x3b00, 0x3b80, 0x3bc0, 0x3c00, 0x3c20, 0x3c40, 0x3c60),
                      _mm_set1_epi16(120 << 7)));
    const __m512i mantissa = _mm512_and_si512(_mm512_srli_epi16(codes, 8), Words(7));
    const __m512i magnitude =
        _mm512_add_epi16(_mm512_permutexvar_epi16(mantissa, multiples), scales);
    const __m512i sign = _mm512_and_si512(codes, Words(0x8000));
    const __mmask32 small = _mm512_testn_epi16_mask(codes, Words(0x7800));
    const __mmask32 zero = _mm512_testn_epi16_mask(codes, Words(0x7f00));
    const __m512i nonzero =
        _mm512_mask_mov_epi16(Normal(codes, scales), small, _mm512_or_si512(magnitude, sign));
    return _mm512_mask_mov_epi16(nonzero, zero, Words(0x8000));
  }
  struct Step {
    __m512i codes;
    bool small;
  };
  [[gnu::always_inline]] static Step Load(const uint8_t* from) {
    _mm_prefetch(from + kAheadOfDecoding, _MM_HINT_T0);
    const __m512i codes = LoadBits(from);
    return {codes, _mm512_testn_epi8_mask(codes, _mm512_set1_epi8(0x78)) != 0};
  }
  template <int pair>
  [[gnu::always_inline]] static __m512i Pair(const Step& step, __m512i scales) {
    // Chunks of two k, two bytes apart.
    static constexpr int kKs[4] = {0, 2, 32, 34};
    static constexpr ByteTable kTable(order, pair, 4, 16, 1, kKs);
    const __m512i codes = _mm512_permutexvar_epi8(LoadBits(kTable.bytes), step.codes);
    return __builtin_expect(step.small, 0) ? Any(codes, scales) : Normal(codes, scales);
  }
};

template <PairOrder order>
struct PairDecoder<WeightFormat::kFp4, order> {
  static constexpr int kBytes = 256, kStepBytes = 64, kGroupTiles = 1, kPairs = 4;

  // Values come from a table as 2^125 times what they are, and the scales take that back: so they
  // are never positive, and subtracting with saturation leaves the table's zeros, -0, where they
  // are.
  static constexpr int kRaised = 125;
  static __m512i Scales(const uint8_t* e8m0) {
    _mm_prefetch(e8m0 + kFp4ScalesAhead, _MM_HINT_T0);
    return _mm512_sub_epi16(ScaleWords(e8m0), Words((127 + kRaised) << 7));
  }
  struct Step {
    __m512i codes;
  };
  [[gnu::always_inline]] static Step Load(const uint8_t* from) {
    if constexpr (order == PairOrder::kNeighbours) {
      _mm_prefetch(from + kFp4FarAheadOfAmx, _MM_HINT_T1);
      _mm_prefetch(from + kFp4AheadOfAmx, _MM_HINT_T0);
    } else {
      _mm_prefetch(from + kAheadOfDecoding, _MM_HINT_T0);
    }
    return {LoadBits(from)};
  }
  template <int pair>
  [[gnu::always_inline]] static __m512i Pair(const Step& step, __m512i scales) {
    // The permutation reads five bits of a lane, of which four are a code's: all twice.
    const __m256i magnitudes = _mm256_add_epi16(
        _mm256_broadcastsi128_si256(
            _mm_setr_epi16(-kRaised * 128, 0x3f00, 0x3f80, 0x3fc0, 0x4000, 0x4040, 0x4080, 0x40c0)),
        _mm256_set1_epi16(kRaised * 128));
    const __m256i signs = _mm256_setr_epi16(-0x8000, 0, 0, 0, 0, 0, 0, 0, -0x8000, -0x8000, -0x8000,
                                            -0x8000, -0x8000, -0x8000, -0x8000, -0x8000);
    const __m512i values = _mm512_broadcast_i64x4(_mm256_or_si256(magnitudes, signs));
    constexpr int k = pair / 2 * 4;
    constexpr Place lower = PlaceOf(WeightFormat::kFp4, 0, k + KOf(order, pair % 2, 0));
    constexpr Place upper = PlaceOf(WeightFormat::kFp4, 0, k + KOf(order, pair % 2, 1));
    static_assert(upper.shift == lower.shift);
    __m512i codes = step.codes;
    int shift = lower.shift;
    if constexpr (order == PairOrder::kNeighbours) {
      // Both lie in one half of a lane: its bytes to where the permutation reads them.
      constexpr int bytes = static_cast<int>(lower.byte * 0x0101 + upper.byte * 0x01010000);
      constexpr int lane = 0x04040404;
      const __m128i lanes = _mm_setr_epi32(bytes, bytes + lane, bytes + 2 * lane, bytes + 3 * lane);
      codes = _mm512_shuffle_epi8(codes, _mm512_broadcast_i32x4(lanes));
    } else {
      static_assert(upper.byte == lower.byte + 2);
      shift += static_cast<int>(lower.byte) * 8;
    }
    if (shift > 0) codes = _mm512_srli_epi16(codes, static_cast<unsigned int>(shift));
    return _mm512_adds_epi16(_mm512_permutexvar_epi16(codes, values), scales);
  }
};

// Tile `i`, in k, of a panel: 16 vectors of pairs.
template <WeightFormat format, PairOrder order>
[[gnu::always_inline]] inline void DecodeTile(const Product& a, int64_t panel, int64_t i,
                                              uint16_t* to) {
  using D = PairDecoder<format, order>;
  const __m512i scales = D::Scales(a.scales + panel * a.panel_scales + i / D::kGroupTiles * kPanel);
  const uint8_t* from = a.values + panel * a.panel_bytes + i * D::kBytes;
  for (const uint8_t* const end = from + D::kBytes; from < end; from += D::kStepBytes) {
    const typename D::Step step = D::Load(from);
    Unrolled<D::kPairs>([&](auto p) __attribute__((always_inline)) {
      _mm512_store_si512(to + p * 32, D::template Pair<p>(step, scales));
    });
    to += D::kPairs * 32;
  }
}

// PairTiles::pack.
template <PairOrder order>
void PackPairs(const Product& a, int64_t m, int64_t block, uint16_t* tiles) {
  static constexpr auto kKs = [] {
    struct {
      alignas(64) uint16_t words[32];
    } table = {};
    for (int i = 0; i < 32; ++i) {
      table.words[i] = static_cast<uint16_t>(i / 4 * 4 + KOf(order, i / 2 % 2, i % 2));
    }
    return table;
  }();
  const __m512i ks = LoadBits(kKs.words);
  uint16_t* const to = tiles + block * kTileRows * a.k;
  for (int64_t r = 0; r < Smaller(kTileRows, m - block * kTileRows); ++r) {
    const float* x = a.x + (block * kTileRows + r) * a.ldx;
    for (int64_t k = 0; k < a.k; k += kTileKs) {
      const __m512i v =
          (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + k + 16), _mm512_loadu_ps(x + k));
      _mm512_store_si512(to + k * kTileRows + r * kTileKs, _mm512_permutexvar_epi16(ks, v));
    }
  }
}

// A task's sums, [panel][row][16] as in Scratch, of `panels` panels to where they belong.
constexpr int64_t kPanelStep = kRowsPerTask * kPanel;

inline void CopySums(const Product& a, const Task& task, int64_t panel, int64_t panels,
                     const float* sums) {
  for (int64_t p = 0; p < panels; ++p) {
    const int64_t column = (panel + p) * kPanel;
    const auto bytes = static_cast<size_t>(Smaller(kPanel, a.n - column)) * sizeof(float);
    for (int64_t r = 0; r < task.rows; ++r) {
      __builtin_memcpy(a.y + (task.row_begin + r) * a.ldy + column,
                       sums + p * kPanelStep + r * kPanel, bytes);
    }
  }
}

}  // namespace
}  // namespace cairn::kernels

#pragma GCC diagnostic pop

#endif  // CAIRN_KERNELS_CPU_BF16_PAIRS_H_
