// weight_chunks.h: the packed weight formats as the multiplying loops see them, for linear.cc,
// few_rows.cc and packed_matrix.cc only.
//
// A panel (16 outputs) is a sequence of chunks of kKs values of k; a chunk decodes to 2 * kKs
// vectors: outputs 0-7 and 8-15 of its first k, then of its second, ... Which byte holds which
// value is chosen so that decoding takes few instructions, and is written down here once, in
// Place().
//
// Scales: kGroup values of k share one scale an output (0: there are none). Where kScaleInWeight,
// decoded weights are whole; otherwise the scale is for the group's sum (linear.h).
//
// Threads: pure functions.
#ifndef CAIRN_KERNELS_CPU_WEIGHT_CHUNKS_H_
#define CAIRN_KERNELS_CPU_WEIGHT_CHUNKS_H_

#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/packed_matrix.h"

namespace cairn::kernels {

// Scales of a panel's 16 outputs.
struct PanelScales {
  __m256 low = _mm256_setzero_ps();
  __m256 high = _mm256_setzero_ps();
};

template <WeightFormat format>
struct Chunks;

template <>
struct Chunks<WeightFormat::kF32> {
  static constexpr int kKs = 1, kParts = 1, kBytes = 64, kGroup = 0;
  static constexpr bool kScaleInWeight = true;
  static PanelScales Scales(const uint8_t*) { return PanelScales(); }
  static void Decode(const uint8_t* p, int, const PanelScales&, __m256* w) {
    w[0] = _mm256_loadu_ps(reinterpret_cast<const float*>(p));
    w[1] = _mm256_loadu_ps(reinterpret_cast<const float*>(p) + 8);
  }
};

// The low and the high halves of 32-bit lanes as BF16 values.
inline __m256 LowHalves(__m256i v) { return _mm256_castsi256_ps(_mm256_slli_epi32(v, 16)); }
inline __m256 HighHalves(__m256i v) {
  return _mm256_castsi256_ps(_mm256_and_si256(v, _mm256_set1_epi32(static_cast<int>(0xffff0000))));
}

// Lane i: output i in the low half, output i + 8 in the high one.
template <>
struct Chunks<WeightFormat::kBf16> {
  static constexpr int kKs = 1, kParts = 1, kBytes = 32, kGroup = 0;
  static constexpr bool kScaleInWeight = true;
  static PanelScales Scales(const uint8_t*) { return PanelScales(); }
  static void Decode(const uint8_t* p, int, const PanelScales&, __m256* w) {
    const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    w[0] = LowHalves(v);
    w[1] = HighHalves(v);
  }
};

// e8m0 bytes of 8 outputs, each raised by `raise`, to F32. The smallest (2^-127) is subnormal.
inline __m256 ScaleValues(const uint8_t* e8m0, int raise) {
  const __m256i bytes =
      _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(e8m0)));
  const __m256i exponent = _mm256_slli_epi32(_mm256_add_epi32(bytes, _mm256_set1_epi32(raise)), 23);
  return _mm256_castsi256_ps(_mm256_max_epi32(exponent, _mm256_set1_epi32(0x00400000)));
}

// Bytes of lane i: outputs i and i + 8 of the first k, then of the second. An e4m3 code put into a
// BF16's exponent and mantissa is 2^-120 of its value (the biases differ by 120), subnormals
// included; the scale carries the 2^120.
template <>
struct Chunks<WeightFormat::kFp8> {
  static constexpr int kKs = 2, kParts = 1, kBytes = 32, kGroup = 128;
  static constexpr bool kScaleInWeight = true;
  static constexpr int kRaise = 120;
  static PanelScales Scales(const uint8_t* e8m0) {
    return {ScaleValues(e8m0, kRaise), ScaleValues(e8m0 + 8, kRaise)};
  }
  static void Decode(const uint8_t* p, int, const PanelScales& scales, __m256* w) {
    const __m256i mask = _mm256_set1_epi16(static_cast<short>(0x87f0));
    const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    const __m256i odd = _mm256_and_si256(_mm256_srai_epi16(v, 4), mask);
    const __m256i even = _mm256_and_si256(_mm256_srai_epi16(_mm256_slli_epi16(v, 8), 4), mask);
    w[0] = _mm256_mul_ps(LowHalves(even), scales.low);
    w[1] = _mm256_mul_ps(LowHalves(odd), scales.high);
    w[2] = _mm256_mul_ps(HighHalves(even), scales.low);
    w[3] = _mm256_mul_ps(HighHalves(odd), scales.high);
  }
};

// Low nibbles: the first two k, high nibbles: the other two. Of 16 bytes, byte 2q + b (q in [0,
// 4)): output q + 8b of the earlier k; byte 8 + 2q + b: of the later one; the upper 16 bytes the
// same for outputs 4 higher.
template <>
struct Chunks<WeightFormat::kFp4> {
  static constexpr int kKs = 4, kParts = 2, kBytes = 32, kGroup = 32;
  static constexpr bool kScaleInWeight = false;
  static PanelScales Scales(const uint8_t* e8m0) {
    return {ScaleValues(e8m0, 0), ScaleValues(e8m0 + 8, 0)};
  }
  static void Decode(const uint8_t* p, int part, const PanelScales&, __m256* w) {
    const __m256i nibble = _mm256_set1_epi8(15);
    const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    const __m256i codes = _mm256_and_si256(part == 0 ? v : _mm256_srli_epi16(v, 4), nibble);
    // The two bytes of each value as a BF16 come from two tables.
    const __m256i upper = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0x00, 0x3f, 0x3f, 0x3f, 0x40, 0x40, 0x40, 0x40, -0x80, -0x41, -0x41, -0x41,
                      -0x40, -0x40, -0x40, -0x40));
    const __m256i lower = _mm256_broadcastsi128_si256(_mm_setr_epi8(
        0, 0, -0x80, -0x40, 0, 0x40, -0x80, -0x40, 0, 0, -0x80, -0x40, 0, 0x40, -0x80, -0x40));
    const __m256i high = _mm256_shuffle_epi8(upper, codes);
    const __m256i low = _mm256_shuffle_epi8(lower, codes);
    const __m256i earlier = _mm256_unpacklo_epi8(low, high);
    const __m256i later = _mm256_unpackhi_epi8(low, high);
    w[0] = LowHalves(earlier);
    w[1] = HighHalves(earlier);
    w[2] = LowHalves(later);
    w[3] = HighHalves(later);
  }
};

// Bytes of a chunk of `format`, and how many k it holds.
struct ChunkShape {
  int64_t ks, bytes, group;
};
constexpr ChunkShape ShapeOf(WeightFormat format) {
  switch (format) {
    case WeightFormat::kF32:
      return {Chunks<WeightFormat::kF32>::kKs, Chunks<WeightFormat::kF32>::kBytes, 0};
    case WeightFormat::kBf16:
      return {Chunks<WeightFormat::kBf16>::kKs, Chunks<WeightFormat::kBf16>::kBytes, 0};
    case WeightFormat::kFp8:
      return {Chunks<WeightFormat::kFp8>::kKs, Chunks<WeightFormat::kFp8>::kBytes, 128};
    case WeightFormat::kFp4:
      return {Chunks<WeightFormat::kFp4>::kKs, Chunks<WeightFormat::kFp4>::kBytes, 32};
  }
  return {};
}

// Byte of a chunk where the value of `output` (in [0, 16)) and k (in [0, ks)) lies, and for FP4 the
// shift of its nibble.
struct Place {
  int64_t byte;
  int shift;
};
constexpr Place PlaceOf(WeightFormat format, int64_t output, int64_t k) {
  const int64_t lane = output % 8, second = output / 8;
  switch (format) {
    case WeightFormat::kF32:
      return {output * 4, 0};
    case WeightFormat::kBf16:
      return {lane * 4 + second * 2, 0};
    case WeightFormat::kFp8:
      return {lane * 4 + k * 2 + second, 0};
    case WeightFormat::kFp4:
      return {lane / 4 * 16 + k % 2 * 8 + lane % 4 * 2 + second, k >= 2 ? 4 : 0};
  }
  return {};
}

}  // namespace cairn::kernels

#endif  // CAIRN_KERNELS_CPU_WEIGHT_CHUNKS_H_
