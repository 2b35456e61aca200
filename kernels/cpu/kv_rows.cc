#include "kernels/cpu/kv_rows.h"

#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/cpu/formats.h"
#include "kernels/cpu/nibbles.h"
#include "kernels/cpu/rounding.h"
#include "kernels/cpu/row_loops.h"

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
  constexpr int64_t kAtOnce = 8;  // groups
  const RowLoops& loops = ChosenRowLoops();
  float values[kAtOnce];
  for (int64_t g = 0; g < n / kFp8Group; g += kAtOnce) {
    const int64_t groups = std::min(kAtOnce, n / kFp8Group - g);
    for (int64_t i = 0; i < groups; ++i) values[i] = E8m0ToF32(scales[g + i]);
    loops.decode_fp8(data + g * kFp8Group, groups, values, x + g * kFp8Group);
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

// The four 32-bit words of eight rows' 16 bytes: word w of all rows in words[w], a lane a row.
inline void TransposeWords(const uint8_t* const* rows, int64_t at, __m256i* words) {
  __m256i pair[4];  // rows j and j + 4
  for (int j = 0; j < 4; ++j) {
    const auto* low = reinterpret_cast<const __m128i*>(rows[j] + at);
    const auto* high = reinterpret_cast<const __m128i*>(rows[j + 4] + at);
    pair[j] = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(low)),
                                      _mm_loadu_si128(high), 1);
  }
  const __m256i a = _mm256_unpacklo_epi32(pair[0], pair[1]);
  const __m256i b = _mm256_unpacklo_epi32(pair[2], pair[3]);
  const __m256i c = _mm256_unpackhi_epi32(pair[0], pair[1]);
  const __m256i d = _mm256_unpackhi_epi32(pair[2], pair[3]);
  words[0] = _mm256_unpacklo_epi64(a, b);
  words[1] = _mm256_unpackhi_epi64(a, b);
  words[2] = _mm256_unpacklo_epi64(c, d);
  words[3] = _mm256_unpackhi_epi64(c, d);
}

// Eight rows of FP4 side by side, in columns [0, 8) of panel [n][16]. In the place of rows from
// `count` on is row 0 with scales of 0.
void DecodeFp4Columns(const uint8_t* const* data, const uint8_t* const* scales, int64_t count,
                      int64_t n, float* panel) {
  const uint8_t* rows[8];
  for (int64_t j = 0; j < 8; ++j) rows[j] = data[j < count ? j : 0];
  for (int64_t g = 0; g < n / kFp4Group; ++g) {
    float scale[8] = {};
    for (int64_t j = 0; j < count; ++j) scale[j] = E8m0ToF32(scales[j][g]);
    const __m256 scale_of_row = _mm256_setr_ps(scale[0], scale[1], scale[2], scale[3], scale[4],
                                               scale[5], scale[6], scale[7]);
    __m256i words[4];
    TransposeWords(rows, g * (kFp4Group / 2), words);
    float* to = panel + g * kFp4Group * 16;
    for (__m256i codes : words) {
      for (int e = 0; e < 8; ++e, codes = _mm256_srli_epi32(codes, 4), to += 16) {
        const __m256 value = NibbleValues(_mm256_and_si256(codes, _mm256_set1_epi32(15)));
        _mm256_storeu_ps(to, _mm256_mul_ps(value, scale_of_row));
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
    const uint8_t* const* upper = count > 8 ? data + 8 : data;
    DecodeFp4Columns(upper, scales + low, count - low, dim_, panel + 8);
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
