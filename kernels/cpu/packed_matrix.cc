#include "kernels/cpu/packed_matrix.h"

#include <algorithm>
#include <cstring>

#include "kernels/cpu/formats.h"
#include "kernels/cpu/weight_chunks.h"

namespace cairn::kernels {
namespace {

constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Of one value, FP4's two to a byte rounded up.
int64_t ValueBytes(WeightFormat format) {
  return format == WeightFormat::kF32 ? 4 : format == WeightFormat::kBf16 ? 2 : 1;
}

bool ScalesFit(const RawMatrix& raw) {
  constexpr int kScaleMax = 254 - Chunks<WeightFormat::kFp8>::kRaise;
  const int64_t count = CeilDiv(raw.rows, 128) * CeilDiv(raw.k, 128);
  return std::all_of(raw.scales, raw.scales + count, [](uint8_t e) { return e <= kScaleMax; });
}

WeightFormat PackedFormat(const RawMatrix& raw) {
  return raw.format == WeightFormat::kFp8 && !ScalesFit(raw) ? WeightFormat::kF32 : raw.format;
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

void PackedMatrix::PackScales(const RawMatrix& raw, int64_t row_begin, int64_t groups) {
  panel_scales_ = groups * kPanel;
  scales_.assign(static_cast<size_t>(panels() * panel_scales_), 127);
  for (int64_t r = 0; r < n_; ++r) {
    const int64_t row = row_begin + r;
    const int64_t scale_row = format_ == WeightFormat::kFp8 ? row / 128 : row;
    uint8_t* to = scales_.data() + r / kPanel * panel_scales_ + r % kPanel;
    for (int64_t g = 0; g < groups; ++g) to[g * kPanel] = raw.scales[scale_row * groups + g];
  }
}

int64_t PackedMatrix::PackedBytes(const RawMatrix& raw) {
  const ChunkShape chunk = ShapeOf(PackedFormat(raw));
  const int64_t groups = chunk.group > 0 ? CeilDiv(raw.k, chunk.group) : 0;
  return CeilDiv(raw.rows, kPanel) * (CeilDiv(raw.k, chunk.ks) * chunk.bytes + groups * kPanel);
}

void PackedMatrix::Pack(const RawMatrix& raw, int64_t row_begin, int64_t n) {
  format_ = PackedFormat(raw);
  n_ = n;
  k_ = raw.k;
  panel_scales_ = 0;
  scales_.clear();
  const bool as_f32 = format_ != raw.format;
  const ChunkShape chunk = ShapeOf(format_);
  panel_bytes_ = CeilDiv(k_, chunk.ks) * chunk.bytes;
  values_.assign(static_cast<size_t>(panels() * panel_bytes_), 0);
  if (chunk.group > 0) PackScales(raw, row_begin, CeilDiv(k_, chunk.group));
  const int64_t size = ValueBytes(format_);
  for (int64_t r = 0; r < n; ++r) {
    const int64_t row = row_begin + r;
    uint8_t* panel = values_.data() + r / kPanel * panel_bytes_;
    for (int64_t k = 0; k < k_; ++k) {
      const Place place = PlaceOf(format_, r % kPanel, k % chunk.ks);
      uint8_t* to = panel + k / chunk.ks * chunk.bytes + place.byte;
      if (format_ == WeightFormat::kFp4) {
        const int code = raw.values[(row * k_ + k) / 2] >> (k % 2 * 4) & 15;
        *to = static_cast<uint8_t>(*to | code << place.shift);
      } else if (as_f32) {
        const float v = RawValue(raw, row, k);
        std::memcpy(to, &v, sizeof(v));
      } else {
        std::memcpy(to, raw.values + (row * k_ + k) * size, static_cast<size_t>(size));
      }
    }
  }
}

}  // namespace cairn::kernels
