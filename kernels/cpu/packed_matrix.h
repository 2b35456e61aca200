// packed_matrix.h: weights in the order the matrix kernels read them, in the number format they
// were stored in.
//
// A matrix W [n, k] (y = W x) is cut into panels of 16 outputs; a panel holds, for each k in turn,
// its 16 values side by side. FP8 and FP4 stay packed (1 and 1/2 byte a value) with their scales
// per panel; they are expanded to F32 a slab of kSlab k-values at a time, exactly (all scales are
// powers of two).
//
// Threads: immutable after Pack. Ownership: owns its bytes.
#ifndef CAIRN_KERNELS_CPU_PACKED_MATRIX_H_
#define CAIRN_KERNELS_CPU_PACKED_MATRIX_H_

#include <cstdint>
#include <span>
#include <vector>

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
  static constexpr int kSlab = 128;

  PackedMatrix() = default;
  // Packs rows [row_begin, row_begin + n) of `raw`.
  PackedMatrix(const RawMatrix& raw, int64_t row_begin, int64_t n);

  int64_t n() const { return n_; }
  int64_t k() const { return k_; }
  int64_t panels() const { return (n_ + kPanel - 1) / kPanel; }
  int64_t bytes() const { return static_cast<int64_t>(values_.size() + scales_.size()); }

  // F32 values of panel `panel`, k in [k_begin, k_begin + count), as [count][kPanel]; k_begin is a
  // multiple of kSlab and count at most kSlab. Returns `scratch` (kSlab * kPanel floats, 32-byte
  // aligned) or, for kF32, the stored values.
  const float* Expand(int64_t panel, int64_t k_begin, int64_t count, float* scratch) const;

 private:
  WeightFormat format_ = WeightFormat::kF32;
  int64_t n_ = 0;
  int64_t k_ = 0;
  int64_t panel_bytes_ = 0;
  int64_t panel_scales_ = 0;
  std::vector<uint8_t> values_;
  std::vector<uint8_t> scales_;  // kFp8: [panel][k/128][16]; kFp4: [panel][k/32][16]
};

// F32 value of one stored element. The slow definition that packing and kernels are tested against.
float RawValue(const RawMatrix& raw, int64_t row, int64_t k);

}  // namespace cairn::kernels

#endif  // CAIRN_KERNELS_CPU_PACKED_MATRIX_H_
