// packed_matrix.h: weights in the order the matrix kernels read them, in the number format they
// were stored in.
//
// A matrix W [n, k] (y = W x) is cut into panels of 16 outputs. A panel lies in one piece and is
// read from its first k to its last; FP8 and FP4 stay packed (1 and 1/2 byte a value), with their
// scales per panel. How values lie inside of a panel: weight_chunks.h.
//
// Threads: immutable but for Pack. Ownership: owns its bytes.
#ifndef CAIRN_KERNELS_CPU_PACKED_MATRIX_H_
#define CAIRN_KERNELS_CPU_PACKED_MATRIX_H_

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/cpu/large_pages.h"

namespace cairn::kernels {

enum class WeightFormat : uint8_t { kF32, kBf16, kFp8, kFp4 };

// The stored form: row-major values and, for kFp8, e8m0 scales [ceil(rows/128), ceil(k/128)], for
// kFp4 (two values a byte, low nibble first) [rows, k/32].
struct RawMatrix {
  WeightFormat format = WeightFormat::kF32;
  int64_t rows = 0;
  int64_t k = 0;
  const uint8_t* values = nullptr;  // may be unaligned
  const uint8_t* scales = nullptr;
};

class PackedMatrix {
 public:
  static constexpr int kPanel = 16;

  PackedMatrix() = default;
  // Packs rows [row_begin, row_begin + n) of `raw`.
  PackedMatrix(const RawMatrix& raw, int64_t row_begin, int64_t n) { Pack(raw, row_begin, n); }
  // The same in place of what was packed before, in its memory where that is large enough.
  void Pack(const RawMatrix& raw, int64_t row_begin, int64_t n);
  // bytes() of a matrix of all rows of `raw`; looks at its scales only.
  static int64_t PackedBytes(const RawMatrix& raw);

  // As packed: FP8 whose scales are beyond what decoding takes (above 2^7) is kept as F32.
  WeightFormat format() const { return format_; }
  // Whether PairLinear takes it: BF16, or FP8 or FP4 whose values, scales included, are normal BF16
  // numbers or zero; of whole groups of 32 k.
  bool takes_pairs() const { return takes_pairs_; }
  int64_t n() const { return n_; }
  int64_t k() const { return k_; }
  int64_t panels() const { return (n_ + kPanel - 1) / kPanel; }
  int64_t bytes() const { return static_cast<int64_t>(values_.size() + scales_.size()); }

  int64_t panel_bytes() const { return panel_bytes_; }
  const uint8_t* panel(int64_t i) const { return values_.data() + i * panel_bytes_; }
  int64_t panel_scale_bytes() const { return panel_scales_; }
  // e8m0: kFp8: [k/128][16]; kFp4: [k/32][16].
  const uint8_t* panel_scales(int64_t i) const { return scales_.data() + i * panel_scales_; }

 private:
  void PackScales(const RawMatrix& raw, int64_t row_begin, int64_t groups);

  WeightFormat format_ = WeightFormat::kF32;
  bool takes_pairs_ = false;
  int64_t n_ = 0;
  int64_t k_ = 0;
  int64_t panel_bytes_ = 0;
  int64_t panel_scales_ = 0;
  std::vector<uint8_t, LargePages<uint8_t>> values_;
  std::vector<uint8_t> scales_;
};

// F32 value of one stored element. The slow definition that packing and kernels are tested against.
float RawValue(const RawMatrix& raw, int64_t row, int64_t k);

}  // namespace cairn::kernels

#endif  // CAIRN_KERNELS_CPU_PACKED_MATRIX_H_
