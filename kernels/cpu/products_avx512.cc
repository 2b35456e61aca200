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
#include "kernels/cpu/pair_rows.h"
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
  static Floats Add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
  static Floats NegativeZeros(Floats v) {
    const __mmask16 zero = _mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_EQ_OQ);
    return _mm512_mask_mov_ps(v, zero, _mm512_set1_ps(-0.0f));
  }

  // 32 registers: 24 sums where weights are decoded already and rows lie at fixed distances.
  static constexpr int kFewRows = 8, kPanelRows = 12, kTileRows = 24, kPairRows = 12;
  static constexpr int Panels(WeightFormat format, int rows) {
    // Decoding FP8 and FP4 takes registers too.
    const bool decodes = format == WeightFormat::kFp8 || format == WeightFormat::kFp4;
    return rows <= 3 ? 4 : rows <= 6 || !decodes ? 2 : 1;
  }

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

inline __m256i TwoLanes(uint32_t first, uint32_t step) {
  const auto of = [&](uint32_t q) { return static_cast<int>(first + q * step); };
  return _mm256_broadcastsi128_si256(_mm_setr_epi32(of(0), of(1), of(2), of(3)));
}

// The other formats' bytes of each output, from a chunk's 32. Repeated they fill a vector, and
// those of an output are then in the 128 bits in which the output is to be, where a shuffle reaches
// them: `low` says which for output 0 (four bytes of the chunk, the lowest first; 0x80: none),
// `high` for output 8, and `step` how much further the next output's are.
inline __m512i OutputBytes(const uint8_t* p, uint32_t low, uint32_t high, uint32_t step) {
  const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  const __m512i bytes =
      _mm512_inserti64x4(_mm512_castsi256_si512(TwoLanes(low, step)), TwoLanes(high, step), 1);
  return _mm512_shuffle_epi8(_mm512_broadcast_i64x4(v), bytes);
}

template <>
struct Avx512::Decoder<WeightFormat::kBf16> {
  static constexpr int kParts = 1;
  static void Decode(const uint8_t* p, int, Floats, Floats* w) {
    w[0] = _mm512_castsi512_ps(OutputBytes(p, 0x01008080, 0x03028080, 0x04040000));
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
    const __m512i codes = OutputBytes(p, 0x02800080, 0x03800180, 0x04000400);
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
  static constexpr int kParts = 2;
  static Floats Scales(const uint8_t* e8m0) {
    return ScaleValues(e8m0, Chunks<WeightFormat::kFp4>::kRaise);
  }
  static void Decode(const uint8_t* p, int part, Floats, Floats* w) {
    // The permutation reads the lowest four bits; of four k, bytes have 2, 3, 0 and 1.
    const __m512i lanes = _mm512_loadu_si512(p);
    const __m512i codes = part == 0 ? lanes : _mm512_srli_epi32(lanes, 4);
    const __m512 values = _mm512_setr_ps(0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f, -0.0f,
                                         -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f);
    w[0] = _mm512_permutexvar_ps(_mm512_srli_epi32(codes, 16), values);
    w[1] = _mm512_permutexvar_ps(_mm512_srli_epi32(codes, 24), values);
    w[2] = _mm512_permutexvar_ps(codes, values);
    w[3] = _mm512_permutexvar_ps(_mm512_srli_epi32(codes, 8), values);
  }
};

}  // namespace

Products Avx512Products() {
  return {{48, 48, 48, 48}, Avx512::kTileRows, FewRows<Avx512>, ManyRows<Avx512>,
          Panel<Avx512>,    Avx512::kPairRows, PairRows<Avx512>};
}

}  // namespace cairn::kernels
