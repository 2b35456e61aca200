#include "kernels/cpu/kv_rows.h"

#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/cpu/formats.h"
#include "kernels/cpu/nibbles.h"
#include "kernels/cpu/rounding.h"

namespace cairn::kernels {
namespace {

constexpr int64_t kFp8Group = 64;
constexpr int64_t kFp4Group = 32;

void EncodeFp8(const float* x, int64_t n, uint8_t* data, uint8_t* scales) {
  for (int64_t g = 0; g < n / kFp8Group; ++g) {
    const float* group = x + g * kFp8Group;
    scales[g] = ScaleE8m0Fp8(MaxMagnitude(group, kFp8Group));
    const __m256 inverse = _mm256_set1_ps(1.0f / E8m0ToF32(scales[g]));
    for (int64_t i = 0; i < kFp8Group; i += 8) {
      const uint64_t codes = E4m3Codes(_mm256_mul_ps(_mm256_loadu_ps(group + i), inverse));
      std::memcpy(data + g * kFp8Group + i, &codes, sizeof(codes));
    }
  }
}

void DecodeFp8(const uint8_t* data, int64_t n, const uint8_t* scales, float* x) {
  for (int64_t g = 0; g < n / kFp8Group; ++g) {
    // 256: an e4m3 code read as half precision is 2^-8 of its value (packed_matrix.cc).
    const __m256 scale = _mm256_set1_ps(E8m0ToF32(scales[g]) * 256.0f);
    for (int64_t i = g * kFp8Group; i < (g + 1) * kFp8Group; i += 8) {
      const __m128i wide =
          _mm_cvtepu8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(data + i)));
      const __m128i sign = _mm_slli_epi16(_mm_and_si128(wide, _mm_set1_epi16(0x80)), 8);
      const __m128i rest = _mm_slli_epi16(_mm_and_si128(wide, _mm_set1_epi16(0x7f)), 7);
      _mm256_storeu_ps(x + i, _mm256_mul_ps(_mm256_cvtph_ps(_mm_or_si128(sign, rest)), scale));
    }
  }
}

void EncodeFp4(const float* x, int64_t n, uint8_t* data, uint8_t* scales) {
  for (int64_t g = 0; g < n / kFp4Group; ++g) {
    const float* group = x + g * kFp4Group;
    scales[g] = ScaleE8m0Fp4(MaxMagnitude(group, kFp4Group));
    const __m256 inverse = _mm256_set1_ps(1.0f / E8m0ToF32(scales[g]));
    for (int64_t i = 0; i < kFp4Group; i += 8) {
      const uint32_t codes =
          PackNibbles(E2m1Codes(_mm256_mul_ps(_mm256_loadu_ps(group + i), inverse)));
      std::memcpy(data + (g * kFp4Group + i) / 2, &codes, sizeof(codes));
    }
  }
}

void DecodeFp4(const uint8_t* data, int64_t n, const uint8_t* scales, float* x) {
  const __m256i shifts = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
  for (int64_t i = 0; i < n; i += 8) {
    int codes;  // eight of them, low nibble first
    std::memcpy(&codes, data + i / 2, sizeof(codes));
    const __m256i nibbles = _mm256_and_si256(_mm256_srlv_epi32(_mm256_set1_epi32(codes), shifts),
                                             _mm256_set1_epi32(15));
    const __m256 scale = _mm256_set1_ps(E8m0ToF32(scales[i / kFp4Group]));
    _mm256_storeu_ps(x + i, _mm256_mul_ps(NibbleValues(nibbles), scale));
  }
}

// Eight rows of FP4 side by side, in columns [0, 8) of panel [n][16]. A lane holds eight codes of
// its row; lanes from `count` on are 0.
void DecodeFp4Columns(const uint8_t* const* data, const uint8_t* const* scales, int64_t count,
                      int64_t n, float* panel) {
  for (int64_t g = 0; g < n / kFp4Group; ++g) {
    alignas(32) float scale[8] = {};
    for (int64_t j = 0; j < count; ++j) scale[j] = E8m0ToF32(scales[j][g]);
    const __m256 scale_of_row = _mm256_load_ps(scale);
    for (int64_t i = g * kFp4Group; i < (g + 1) * kFp4Group; i += 8) {
      alignas(32) uint32_t codes[8] = {};
      for (int64_t j = 0; j < count; ++j) std::memcpy(codes + j, data[j] + i / 2, sizeof(codes[j]));
      __m256i rest = _mm256_load_si256(reinterpret_cast<const __m256i*>(codes));
      for (int64_t e = i; e < i + 8; ++e, rest = _mm256_srli_epi32(rest, 4)) {
        const __m256 value = NibbleValues(_mm256_and_si256(rest, _mm256_set1_epi32(15)));
        _mm256_storeu_ps(panel + e * 16, _mm256_mul_ps(value, scale_of_row));
      }
    }
  }
}

}  // namespace

RowCodec::RowCodec(RowEncoding encoding, int64_t dim, int64_t rope)
    : encoding_(encoding), dim_(dim), rope_(rope) {
  switch (encoding) {
    case RowEncoding::kF32:
      data_bytes_ = 4 * dim;
      scale_bytes_ = 0;
      break;
    case RowEncoding::kFp8Bf16:
    case RowEncoding::kFp8F32:
      data_bytes_ = dim - rope + (encoding == RowEncoding::kFp8Bf16 ? 2 : 4) * rope;
      scale_bytes_ = ((dim - rope) / kFp8Group + 7) / 8 * 8;
      break;
    case RowEncoding::kFp4:
      data_bytes_ = dim / 2;
      scale_bytes_ = dim / kFp4Group;
      break;
  }
}

std::string RowCodec::Name() const {
  switch (encoding_) {
    case RowEncoding::kF32:
      return "f32";
    case RowEncoding::kFp8Bf16:
      return "fp8e4m3x64+bf16";
    case RowEncoding::kFp8F32:
      return "fp8e4m3x64+f32";
    case RowEncoding::kFp4:
      return "fp4e2m1x32";
  }
  return "";
}

void RowCodec::Encode(const float* x, uint8_t* data, uint8_t* scales) const {
  switch (encoding_) {
    case RowEncoding::kF32:
      std::memcpy(data, x, static_cast<size_t>(data_bytes_));
      break;
    case RowEncoding::kFp8Bf16: {
      const int64_t nope = dim_ - rope_;
      std::memset(scales, 0, static_cast<size_t>(scale_bytes_));
      EncodeFp8(x, nope, data, scales);
      for (int64_t i = 0; i < rope_; ++i) {
        const uint16_t v = F32ToBf16(x[nope + i]);
        std::memcpy(data + nope + 2 * i, &v, sizeof(v));
      }
      break;
    }
    case RowEncoding::kFp8F32:
      std::memset(scales, 0, static_cast<size_t>(scale_bytes_));
      EncodeFp8(x, dim_ - rope_, data, scales);
      std::memcpy(data + dim_ - rope_, x + dim_ - rope_, static_cast<size_t>(4 * rope_));
      break;
    case RowEncoding::kFp4:
      EncodeFp4(x, dim_, data, scales);
      break;
  }
}

void RowCodec::Decode(const uint8_t* data, const uint8_t* scales, float* x) const {
  switch (encoding_) {
    case RowEncoding::kF32:
      std::memcpy(x, data, static_cast<size_t>(data_bytes_));
      break;
    case RowEncoding::kFp8Bf16: {
      const int64_t nope = dim_ - rope_;
      DecodeFp8(data, nope, scales, x);
      for (int64_t i = 0; i < rope_; ++i) {
        uint16_t v;
        std::memcpy(&v, data + nope + 2 * i, sizeof(v));
        x[nope + i] = Bf16ToF32(v);
      }
      break;
    }
    case RowEncoding::kFp8F32:
      DecodeFp8(data, dim_ - rope_, scales, x);
      std::memcpy(x + dim_ - rope_, data + dim_ - rope_, static_cast<size_t>(4 * rope_));
      break;
    case RowEncoding::kFp4:
      DecodeFp4(data, dim_, scales, x);
      break;
  }
}

void RowCodec::DecodePanel(const uint8_t* const* data, const uint8_t* const* scales, int64_t count,
                           float* panel) const {
  if (encoding_ == RowEncoding::kFp4) {
    const int64_t low = std::min<int64_t>(count, 8);
    DecodeFp4Columns(data, scales, low, dim_, panel);
    DecodeFp4Columns(data + low, scales + low, count - low, dim_, panel + 8);
    return;
  }
  std::memset(panel, 0, static_cast<size_t>(dim_ * 16) * sizeof(float));
  std::vector<float> row(static_cast<size_t>(dim_));
  for (int64_t j = 0; j < count; ++j) {
    Decode(data[j], scales[j], row.data());
    for (int64_t e = 0; e < dim_; ++e) panel[e * 16 + j] = row[static_cast<size_t>(e)];
  }
}

}  // namespace cairn::kernels
