// Products with AVX2, FMA and F16C: 16 outputs are two vectors.
#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/few_rows.h"
#include "kernels/cpu/many_rows.h"
#include "kernels/cpu/pair_rows.h"
#include "kernels/cpu/products.h"

namespace cairn::kernels {
namespace {

struct Avx2 {
  struct Floats {
    __m256 low, high;
  };
  static Floats Zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static Floats Load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static void Store(float* p, const Floats& v) {
    _mm256_storeu_ps(p, v.low);
    _mm256_storeu_ps(p + 8, v.high);
  }
  static __m256 Splat(const float* p) { return _mm256_broadcast_ss(p); }
  static Floats Fma(__m256 v, const Floats& w, const Floats& sum) {
    return {_mm256_fmadd_ps(v, w.low, sum.low), _mm256_fmadd_ps(v, w.high, sum.high)};
  }
  static Floats Fma(const Floats& v, const Floats& w, const Floats& sum) {
    return {_mm256_fmadd_ps(v.low, w.low, sum.low), _mm256_fmadd_ps(v.high, w.high, sum.high)};
  }
  static Floats Add(const Floats& a, const Floats& b) {
    return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
  }
  static Floats NegativeZeros(const Floats& v) {
    return {NegativeZeros(v.low), NegativeZeros(v.high)};
  }
  static __m256 NegativeZeros(__m256 v) {
    const __m256 zero = _mm256_cmp_ps(v, _mm256_setzero_ps(), _CMP_EQ_OQ);
    return _mm256_or_ps(v, _mm256_and_ps(zero, _mm256_set1_ps(-0.0f)));
  }

  // 16 registers: 12 sums, and room to decode.
  static constexpr int kFewRows = 6, kPanelRows = 6, kTileRows = 6, kPairRows = 2;
  static constexpr int Panels(WeightFormat, int rows) { return rows == 1 ? 4 : rows <= 3 ? 2 : 1; }

  template <WeightFormat format>
  struct Decoder;
};

template <>
struct Avx2::Decoder<WeightFormat::kF32> {
  static constexpr int kParts = 1;
  static void Decode(const uint8_t* p, int, const Floats&, Floats* w) {
    w[0] = Load(reinterpret_cast<const float*>(p));
  }
};

// The low and the high halves of 32-bit lanes as BF16 values.
inline __m256 LowHalves(__m256i v) { return _mm256_castsi256_ps(_mm256_slli_epi32(v, 16)); }
inline __m256 HighHalves(__m256i v) {
  return _mm256_castsi256_ps(_mm256_and_si256(v, _mm256_set1_epi32(static_cast<int>(0xffff0000))));
}

inline __m256i Bytes(const uint8_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}

template <>
struct Avx2::Decoder<WeightFormat::kBf16> {
  static constexpr int kParts = 1;
  static void Decode(const uint8_t* p, int, const Floats&, Floats* w) {
    const __m256i v = Bytes(p);
    w[0] = {LowHalves(v), HighHalves(v)};
  }
};

// e8m0 bytes of 8 outputs, each raised by `raise`, to F32. The smallest (2^-127) is subnormal.
inline __m256 ScaleValues(const uint8_t* e8m0, int raise) {
  const __m256i bytes =
      _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(e8m0)));
  const __m256i exponent = _mm256_slli_epi32(_mm256_add_epi32(bytes, _mm256_set1_epi32(raise)), 23);
  return _mm256_castsi256_ps(_mm256_max_epi32(exponent, _mm256_set1_epi32(0x00400000)));
}

template <>
struct Avx2::Decoder<WeightFormat::kFp8> {
  static constexpr int kParts = 1;
  static Floats Scales(const uint8_t* e8m0) {
    constexpr int kRaise = Chunks<WeightFormat::kFp8>::kRaise;
    return {ScaleValues(e8m0, kRaise), ScaleValues(e8m0 + 8, kRaise)};
  }
  static void Decode(const uint8_t* p, int, const Floats& scales, Floats* w) {
    const __m256i mask = _mm256_set1_epi16(static_cast<short>(0x87f0));
    const __m256i v = Bytes(p);
    const __m256i odd = _mm256_and_si256(_mm256_srai_epi16(v, 4), mask);
    const __m256i even = _mm256_and_si256(_mm256_srai_epi16(_mm256_slli_epi16(v, 8), 4), mask);
    w[0] = {_mm256_mul_ps(LowHalves(even), scales.low), _mm256_mul_ps(LowHalves(odd), scales.high)};
    w[1] = {_mm256_mul_ps(HighHalves(even), scales.low),
            _mm256_mul_ps(HighHalves(odd), scales.high)};
  }
};

template <>
struct Avx2::Decoder<WeightFormat::kFp4> {
  static constexpr int kParts = 4;
  static Floats Scales(const uint8_t* e8m0) {
    return {ScaleValues(e8m0, 0), ScaleValues(e8m0 + 8, 0)};
  }
  // The low halves of eight outputs' lanes have the part's first k, the high ones its second.
  static __m256i Pair(const uint8_t* p, int part) {
    // Of each output's four bytes those of the first two k before those of the others.
    const __m256i order = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(2, 3, 6, 7, 10, 11, 14, 15, 0, 1, 4, 5, 8, 9, 12, 13));
    const __m256i v = _mm256_shuffle_epi8(Bytes(p), order);
    const __m256i codes =
        _mm256_and_si256(part < 2 ? v : _mm256_srli_epi16(v, 4), _mm256_set1_epi8(15));
    // The two bytes of each value as a BF16 come from two tables.
    const __m256i upper = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0x00, 0x3f, 0x3f, 0x3f, 0x40, 0x40, 0x40, 0x40, -0x80, -0x41, -0x41, -0x41,
                      -0x40, -0x40, -0x40, -0x40));
    const __m256i lower = _mm256_broadcastsi128_si256(_mm_setr_epi8(
        0, 0, -0x80, -0x40, 0, 0x40, -0x80, -0x40, 0, 0, -0x80, -0x40, 0, 0x40, -0x80, -0x40));
    const __m256i high = _mm256_shuffle_epi8(upper, codes);
    const __m256i low = _mm256_shuffle_epi8(lower, codes);
    return part % 2 == 0 ? _mm256_unpacklo_epi8(low, high) : _mm256_unpackhi_epi8(low, high);
  }
  static void Decode(const uint8_t* p, int part, const Floats&, Floats* w) {
    const __m256i first = Pair(p, part), second = Pair(p + 32, part);
    w[0] = {LowHalves(first), LowHalves(second)};
    w[1] = {HighHalves(first), HighHalves(second)};
  }
};

}  // namespace

Products Avx2Products() {
  return {{48, 48, 24, 24}, Avx2::kTileRows, FewRows<Avx2>, ManyRows<Avx2>,
          Panel<Avx2>,      Avx2::kPairRows, PairRows<Avx2>};
}

}  // namespace cairn::kernels
