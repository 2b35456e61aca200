#include "kernels/cpu/packed_matrix.h"

#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "kernels/cpu/formats.h"
#include "kernels/cpu/nibbles.h"

namespace cairn::kernels {
namespace {

constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Sixteen e4m3 codes to two F32 vectors. An e4m3 code shifted into a half's exponent and mantissa
// is the value times 2^-8 (the biases differ by 8), subnormals included; the scale carries the 2^8.
inline void ExpandFp8(const uint8_t* codes, __m256 scale_low, __m256 scale_high, float* out) {
  const __m256i wide =
      _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes)));
  const __m256i sign = _mm256_slli_epi16(_mm256_and_si256(wide, _mm256_set1_epi16(0x80)), 8);
  const __m256i rest = _mm256_slli_epi16(_mm256_and_si256(wide, _mm256_set1_epi16(0x7f)), 7);
  const __m256i half = _mm256_or_si256(sign, rest);
  const __m256 low = _mm256_cvtph_ps(_mm256_castsi256_si128(half));
  const __m256 high = _mm256_cvtph_ps(_mm256_extracti128_si256(half, 1));
  _mm256_store_ps(out, _mm256_mul_ps(low, scale_low));
  _mm256_store_ps(out + 8, _mm256_mul_ps(high, scale_high));
}

inline __m256 LoadScales(const uint8_t* e8m0, float factor) {
  alignas(32) float values[8];
  for (int i = 0; i < 8; ++i) values[i] = E8m0ToF32(e8m0[i]) * factor;
  return _mm256_load_ps(values);
}

}  // namespace

float RawValue(const RawMatrix& raw, int64_t row, int64_t k) {
  switch (raw.format) {
    case WeightFormat::kF32: {
      float v;
      std::memcpy(&v, raw.values + (row * raw.k + k) * 4, sizeof(v));
      return v;
    }
    case WeightFormat::kBf16: {
      uint16_t v;
      std::memcpy(&v, raw.values + (row * raw.k + k) * 2, sizeof(v));
      return Bf16ToF32(v);
    }
    case WeightFormat::kFp8:
      return E4m3ToF32(raw.values[row * raw.k + k]) *
             E8m0ToF32(raw.scales[(row / 128) * CeilDiv(raw.k, 128) + k / 128]);
    case WeightFormat::kFp4: {
      const uint8_t byte = raw.values[row * (raw.k / 2) + k / 2];
      return E2m1ToF32(k % 2 == 0 ? byte & 15 : byte >> 4) *
             E8m0ToF32(raw.scales[row * (raw.k / 32) + k / 32]);
    }
  }
  return 0.0f;
}

PackedMatrix::PackedMatrix(const RawMatrix& raw, int64_t row_begin, int64_t n)
    : format_(raw.format), n_(n), k_(raw.k) {
  int64_t scale_rows = 0;
  switch (format_) {
    case WeightFormat::kF32:
      panel_bytes_ = k_ * kPanel * 4;
      break;
    case WeightFormat::kBf16:
      panel_bytes_ = k_ * kPanel * 2;
      break;
    case WeightFormat::kFp8:
      panel_bytes_ = k_ * kPanel;
      scale_rows = CeilDiv(k_, 128);
      break;
    case WeightFormat::kFp4:
      panel_bytes_ = k_ / 2 * kPanel;
      scale_rows = k_ / 32;
      break;
  }
  panel_scales_ = scale_rows * kPanel;
  values_.assign(static_cast<size_t>(panels() * panel_bytes_), 0);
  scales_.assign(static_cast<size_t>(panels() * panel_scales_), 127);
  // Bytes of one stored element, FP4 as pairs.
  const int64_t size = format_ == WeightFormat::kF32 ? 4 : format_ == WeightFormat::kBf16 ? 2 : 1;
  const int64_t per_row = format_ == WeightFormat::kFp4 ? k_ / 2 : k_;
  for (int64_t r = 0; r < n; ++r) {
    const int64_t row = row_begin + r;
    const uint8_t* from = raw.values + row * per_row * size;
    uint8_t* to = values_.data() + r / kPanel * panel_bytes_ + r % kPanel * size;
    for (int64_t i = 0; i < per_row; ++i) {
      std::memcpy(to + i * kPanel * size, from + i * size, static_cast<size_t>(size));
    }
    uint8_t* scale = scales_.data() + r / kPanel * panel_scales_ + r % kPanel;
    for (int64_t s = 0; s < scale_rows; ++s) {
      const int64_t scale_row = format_ == WeightFormat::kFp8 ? row / 128 : row;
      scale[s * kPanel] = raw.scales[scale_row * scale_rows + s];
    }
  }
}

const float* PackedMatrix::Expand(int64_t panel, int64_t k_begin, int64_t count,
                                  float* scratch) const {
  const uint8_t* values = values_.data() + panel * panel_bytes_;
  const uint8_t* scales = scales_.data() + panel * panel_scales_;
  switch (format_) {
    case WeightFormat::kF32:
      return reinterpret_cast<const float*>(values) + k_begin * kPanel;
    case WeightFormat::kBf16: {
      const uint8_t* from = values + k_begin * kPanel * 2;
      for (int64_t i = 0; i < count * 2; ++i) {
        const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from) + i);
        const __m256i wide = _mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16);
        _mm256_store_ps(scratch + i * 8, _mm256_castsi256_ps(wide));
      }
      return scratch;
    }
    case WeightFormat::kFp8: {
      const uint8_t* scale = scales + k_begin / 128 * kPanel;
      const __m256 low = LoadScales(scale, 256.0f);
      const __m256 high = LoadScales(scale + 8, 256.0f);
      const uint8_t* from = values + k_begin * kPanel;
      for (int64_t i = 0; i < count; ++i) {
        ExpandFp8(from + i * kPanel, low, high, scratch + i * kPanel);
      }
      return scratch;
    }
    case WeightFormat::kFp4: {
      for (int64_t i = 0; i < count; i += 32) {
        const uint8_t* scale = scales + (k_begin + i) / 32 * kPanel;
        const __m256 low = LoadScales(scale, 1.0f);
        const __m256 high = LoadScales(scale + 8, 1.0f);
        const uint8_t* from = values + (k_begin + i) / 2 * kPanel;
        float* to = scratch + i * kPanel;
        for (int64_t pair = 0; pair < std::min<int64_t>(16, (count - i) / 2); ++pair) {
          const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from) + pair);
          const __m256i a = _mm256_cvtepu8_epi32(bytes);
          const __m256i b = _mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8));
          float* out = to + pair * 2 * kPanel;
          _mm256_store_ps(
              out, _mm256_mul_ps(NibbleValues(_mm256_and_si256(a, _mm256_set1_epi32(15))), low));
          _mm256_store_ps(
              out + 8,
              _mm256_mul_ps(NibbleValues(_mm256_and_si256(b, _mm256_set1_epi32(15))), high));
          _mm256_store_ps(out + 16, _mm256_mul_ps(NibbleValues(_mm256_srli_epi32(a, 4)), low));
          _mm256_store_ps(out + 24, _mm256_mul_ps(NibbleValues(_mm256_srli_epi32(b, 4)), high));
        }
      }
      return scratch;
    }
  }
  return scratch;
}

}  // namespace cairn::kernels
