#include "kernels/cpu/packed_matrix.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels/cpu/formats.h"
#include "kernels/cpu/weight_chunks.h"

namespace cairn::kernels {
namespace {

constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Of one value, FP4's two to a byte rounded up.
constexpr int64_t ValueBytes(WeightFormat format) {
  return format == WeightFormat::kF32 ? 4 : format == WeightFormat::kBf16 ? 2 : 1;
}

bool ScalesFit(const RawMatrix& raw) {
  constexpr int kScaleMax = 254 - Chunks<WeightFormat::kFp8>::kRaise;
  const int64_t count = CeilDiv(raw.rows, 128) * CeilDiv(raw.k, 128);
  return std::all_of(raw.scales, raw.scales + count, [](uint8_t e) { return e <= kScaleMax; });
}

// Whether values with such scales are normal numbers: from 2^-9 to 448 of the scale (below 2^8, by
// ScalesFit, in any case), from 0.5 to 6 of it.
bool ScalesOfPairs(WeightFormat format, const std::vector<uint8_t>& scales) {
  const int least = format == WeightFormat::kFp8 ? 10 : 2;
  const int most = format == WeightFormat::kFp8 ? 254 : 252;
  return std::all_of(scales.begin(), scales.end(),
                     [&](uint8_t e) { return e >= least && e <= most; });
}

WeightFormat PackedFormat(const RawMatrix& raw) {
  return raw.format == WeightFormat::kFp8 && !ScalesFit(raw) ? WeightFormat::kF32 : raw.format;
}

// Puts the value of `row` and `k` where output `r` of `panel` has it, which is zero as yet.
void PackValue(const RawMatrix& raw, WeightFormat format, int64_t row, int64_t k, uint8_t* panel,
               int64_t r) {
  const ChunkShape chunk = ShapeOf(format);
  const Place place = PlaceOf(format, r, k % chunk.ks);
  uint8_t* to = panel + k / chunk.ks * chunk.bytes + place.byte;
  const int64_t size = ValueBytes(format);
  if (format == WeightFormat::kFp4) {
    const int code = raw.values[(row * raw.k + k) / 2] >> (k % 2 * 4) & 15;
    *to = static_cast<uint8_t>(*to | code << place.shift);
  } else if (format != raw.format) {
    const float v = RawValue(raw, row, k);
    std::memcpy(to, &v, sizeof(v));
  } else {
    std::memcpy(to, raw.values + (row * raw.k + k) * size, static_cast<size_t>(size));
  }
}

// The whole chunks of a panel whose 16 rows begin at rows[.]. PackValue's places, but known when
// this is compiled: several times as fast.
template <WeightFormat format, size_t... kValues>
void PackChunks(const uint8_t* const* rows, int64_t chunks, uint8_t* to,
                std::index_sequence<kValues...>) {
  constexpr int64_t kKs = Chunks<format>::kKs, kBytes = Chunks<format>::kBytes;
  for (int64_t c = 0; c < chunks; ++c, to += kBytes) {
    uint8_t chunk[kBytes] = {};
    const auto put = [&]<size_t kValue>(std::integral_constant<size_t, kValue>) {
      constexpr int64_t kRow = kValue / kKs, kK = kValue % kKs;
      constexpr Place kPlace = PlaceOf(format, kRow, kK);
      constexpr size_t kSize = ValueBytes(format);
      std::memcpy(chunk + kPlace.byte, rows[kRow] + (c * kKs + kK) * kSize, kSize);
    };
    (put(std::integral_constant<size_t, kValues>()), ...);
    std::memcpy(to, chunk, kBytes);
  }
}

// FP4: a row's next eight codes, as stored, where its output's lane has them.
constexpr uint32_t LaneOf(uint32_t codes) {
  const uint32_t even = codes & 0x0f0f0f0f, odd = codes >> 4 & 0x0f0f0f0f;
  // In two bytes: k = 0 and 4, 2 and 6; 1 and 5, 3 and 7.
  const uint32_t evens = even | even >> 12, odds = odd | odd >> 12;
  return (evens >> 8 & 0xff) | (odds & 0xff00) | (evens & 0xff) << 16 | odds << 24;
}
constexpr bool LanesAreAsPlaced() {
  for (int k = 0; k < 8; ++k) {
    const Place place = PlaceOf(WeightFormat::kFp4, 0, k);
    if (LaneOf(15u << 4 * k) != 15u << (8 * place.byte + place.shift)) return false;
  }
  return true;
}
static_assert(LanesAreAsPlaced());

void PackLanes(const uint8_t* const* rows, int64_t chunks, uint8_t* to) {
  for (int64_t c = 0; c < chunks; ++c) {
    for (int64_t r = 0; r < PackedMatrix::kPanel; ++r, to += sizeof(uint32_t)) {
      uint32_t lane;
      std::memcpy(&lane, rows[r] + c * static_cast<int64_t>(sizeof(lane)), sizeof(lane));
      lane = LaneOf(lane);
      std::memcpy(to, &lane, sizeof(lane));
    }
  }
}

// Returns up to which k it packed.
template <WeightFormat format>
int64_t PackPanelAs(const RawMatrix& raw, int64_t row, uint8_t* panel) {
  constexpr int64_t kPanel = PackedMatrix::kPanel, kKs = Chunks<format>::kKs;
  const uint8_t* rows[kPanel];
  for (int64_t r = 0; r < kPanel; ++r) {
    const int64_t first = (row + r) * raw.k;
    rows[r] = raw.values + (format == WeightFormat::kFp4 ? first / 2 : first * ValueBytes(format));
  }
  const int64_t chunks = raw.k / kKs;
  if constexpr (format == WeightFormat::kFp4) {
    PackLanes(rows, chunks, panel);
  } else {
    PackChunks<format>(rows, chunks, panel, std::make_index_sequence<kPanel * kKs>());
  }
  return chunks * kKs;
}

int64_t PackPanel(const RawMatrix& raw, int64_t row, uint8_t* panel) {
  switch (raw.format) {
    case WeightFormat::kF32:
      return PackPanelAs<WeightFormat::kF32>(raw, row, panel);
    case WeightFormat::kBf16:
      return PackPanelAs<WeightFormat::kBf16>(raw, row, panel);
    case WeightFormat::kFp8:
      return PackPanelAs<WeightFormat::kFp8>(raw, row, panel);
    case WeightFormat::kFp4:
      return PackPanelAs<WeightFormat::kFp4>(raw, row, panel);
  }
  return 0;
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
  takes_pairs_ = format_ != WeightFormat::kF32 && k_ % 32 == 0 && ScalesOfPairs(format_, scales_);
  for (int64_t begin = 0; begin < n; begin += kPanel) {
    uint8_t* const panel = values_.data() + begin / kPanel * panel_bytes_;
    const int64_t rows = std::min<int64_t>(kPanel, n - begin);
    const int64_t done = rows < kPanel || as_f32 ? 0 : PackPanel(raw, row_begin + begin, panel);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t k = done; k < k_; ++k) {
        PackValue(raw, format_, row_begin + begin + r, k, panel, r);
      }
    }
  }
}

}  // namespace cairn::kernels
