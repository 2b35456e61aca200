// Products with AVX-512: 16 outputs are one vector. Compiled for x86-64-v4, and called only where
// the processor has that.
//
// So nothing of this file may be used by the linker for others: whatever inline function it used of
// another file would be compiled here with these instructions too. It calls none; the test
// check_avx512 sees that it defines one symbol.
#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/few_rows.h"
#include "kernels/cpu/many_rows.h"
#include "kernels/cpu/products.h"

namespace cairn::kernels {
namespace {

struct Avx512 {
  using Floats = __m512;
  static Floats Zero() { return _mm512_setzero_ps(); }
  static Floats Load(const float* p) { return _mm512_loadu_ps(p); }
  static void Store(float* p, Floats v) { _mm512_storeu_ps(p, v); }
  static Floats Splat(const float* p) { return _mm512_set1_ps(*p); }
  static Floats Fma(Floats v, Floats w, Floats sum) { return _mm512_fmadd_ps(v, w, sum); }

  // 32 registers: 24 sums where weights are decoded already.
  static constexpr int kFewRows = 12, kTileRows = 24;
  static constexpr int Panels(int rows) { return rows <= 3 ? 4 : rows <= 8 ? 2 : 1; }

  template <WeightFormat format>
  struct Decoder;
};

template <>
struct Avx512::Decoder<WeightFormat::kF32> {
  static constexpr int kParts = 1;
  static void Decode(const uint8_t* p, int, Floats, Floats* w) {
    w[0] = Load(reinterpret_cast<const float*>(p));
  }
};

// The other formats: a chunk's 32 bytes twice, so that each output's bytes are in the 128 bits that
// the output itself is to be in, from which one shuffle takes them. `zero` names no byte.
constexpr int8_t zero = -128;

inline __m512i TwiceShuffled(const uint8_t* p, __m512i bytes) {
  const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_shuffle_epi8(_mm512_broadcast_i64x4(v), bytes);
}

// Bytes a..d of the lanes of outputs 0-3 and 4-7, then of 8-11 and 12-15; those of the next output
// are `step` further.
struct LaneBytes {
  int8_t a, b, c, d;
};
[[gnu::always_inline]] inline __m512i ShuffleOf(LaneBytes low, LaneBytes high, int step) {
  const auto lanes = [step](LaneBytes l) __attribute__((always_inline)) {
    const auto lane = [&](int q) __attribute__((always_inline)) {
      const auto at = [&](int8_t byte) __attribute__((always_inline)) {
        return byte == zero ? 0x80u : static_cast<uint32_t>(byte + q * step);
      };
      return static_cast<int>(at(l.a) | at(l.b) << 8 | at(l.c) << 16 | at(l.d) << 24);
    };
    return _mm_setr_epi32(lane(0), lane(1), lane(2), lane(3));
  };
  return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_broadcastsi128_si256(lanes(low))),
                            _mm256_broadcastsi128_si256(lanes(high)), 1);
}

template <>
struct Avx512::Decoder<WeightFormat::kBf16> {
  static constexpr int kParts = 1;
  static void Decode(const uint8_t* p, int, Floats, Floats* w) {
    const __m512i bytes = ShuffleOf({zero, zero, 0, 1}, {zero, zero, 2, 3}, 4);
    w[0] = _mm512_castsi512_ps(TwiceShuffled(p, bytes));
  }
};

// e8m0 bytes of 16 outputs, each raised by `raise`, to F32. The smallest (2^-127) is subnormal.
inline __m512 ScaleValues(const uint8_t* e8m0, int raise) {
  const __m512i bytes =
      _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(e8m0)));
  const __m512i exponent = _mm512_slli_epi32(_mm512_add_epi32(bytes, _mm512_set1_epi32(raise)), 23);
  return _mm512_castsi512_ps(_mm512_max_epi32(exponent, _mm512_set1_epi32(0x00400000)));
}

template <>
struct Avx512::Decoder<WeightFormat::kFp8> {
  static constexpr int kParts = 1;
  static Floats Scales(const uint8_t* e8m0) {
    return ScaleValues(e8m0, Chunks<WeightFormat::kFp8>::kRaise);
  }
  static void Decode(const uint8_t* p, int, Floats scales, Floats* w) {
    // Codes in the upper bytes of 16 bits: of the first k in the low 16.
    const __m512i codes = TwiceShuffled(p, ShuffleOf({zero, 0, zero, 2}, {zero, 1, zero, 3}, 4));
    const __m512i mask = _mm512_set1_epi32(static_cast<int>(0x87f00000));
    const __m512i moved = _mm512_srai_epi16(codes, 4);
    const __m512i first = _mm512_and_si512(_mm512_slli_epi32(moved, 16), mask);
    const __m512i second = _mm512_and_si512(moved, mask);
    w[0] = _mm512_mul_ps(_mm512_castsi512_ps(first), scales);
    w[1] = _mm512_mul_ps(_mm512_castsi512_ps(second), scales);
  }
};

template <>
struct Avx512::Decoder<WeightFormat::kFp4> {
  static constexpr int kParts = 1;
  static Floats Scales(const uint8_t* e8m0) {
    return ScaleValues(e8m0, Chunks<WeightFormat::kFp4>::kRaise);
  }
  static void Decode(const uint8_t* p, int, Floats, Floats* w) {
    // An output's four codes, of which the permutation reads the lowest bits.
    const __m512i codes = TwiceShuffled(p, ShuffleOf({0, 8, zero, zero}, {1, 9, zero, zero}, 2));
    const __m512 values = _mm512_setr_ps(0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f, -0.0f,
                                         -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f);
    w[0] = _mm512_permutexvar_ps(codes, values);
    w[1] = _mm512_permutexvar_ps(_mm512_srli_epi32(codes, 8), values);
    w[2] = _mm512_permutexvar_ps(_mm512_srli_epi32(codes, 4), values);
    w[3] = _mm512_permutexvar_ps(_mm512_srli_epi32(codes, 12), values);
  }
};

}  // namespace

Products Avx512Products() {
  return {{48, 48, 24, 24}, Avx512::kTileRows, FewRows<Avx512>, ManyRows<Avx512>, Panel<Avx512>};
}

}  // namespace cairn::kernels
