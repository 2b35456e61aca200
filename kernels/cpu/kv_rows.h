// kv_rows.h: one K = V row or one indexer key as it is stored, and back to F32.
//
// kFp8Bf16   window, CSA and HCA rows under KV quantisation: dims [0, dim-rope) e4m3 in groups of
// 64 with e8m0 scales, then
//            rope dims as BF16: data (dim-rope) + 2*rope bytes; scales (dim-rope)/64 bytes padded
//            with zeros to a multiple of 8. dim 512, rope 64: 448 + 128 + 8 = 584 bytes (spec
//            section 3.2).
// kFp8F32    the same with the rope dims left as F32: 448 + 256 + 8 = 712 bytes. For measuring the
// engine against
//            references that round nothing but the e4m3 part.
// kFp4       indexer keys under KV quantisation: e2m1 in groups of 32, low nibble first, e8m0
// scales. dim 128: 64 + 4 = 68. kF32       without quantisation: dim floats, no scales.
//
// The engine computes with Decode(Encode(x)) and never with x, so storing a row loses nothing: that
// is the quantisation the model was trained with. Encode of a decoded row gives the same bytes.
//
// Threads: values. Data and scales of a row lie apart: all rows' data of a layer first, then all
// their scales.
#ifndef CAIRN_KERNELS_CPU_KV_ROWS_H_
#define CAIRN_KERNELS_CPU_KV_ROWS_H_

#include <cstdint>
#include <string>

namespace cairn::kernels {

enum class RowEncoding : uint8_t { kF32, kFp8Bf16, kFp8F32, kFp4 };

class RowCodec {
 public:
  // REQUIRES: for kFp8Bf16 and kFp8F32 (dim - rope) % 64 == 0; for kFp4 dim % 32 == 0.
  RowCodec(RowEncoding encoding, int64_t dim, int64_t rope);

  RowEncoding encoding() const { return encoding_; }
  int64_t dim() const { return dim_; }
  int64_t data_bytes() const { return data_bytes_; }
  int64_t scale_bytes() const { return scale_bytes_; }
  int64_t row_bytes() const { return data_bytes_ + scale_bytes_; }
  // As in a layout descriptor: "f32", "fp8e4m3x64+bf16", "fp8e4m3x64+f32", "fp4e2m1x32".
  std::string Name() const;

  void Encode(const float* x, uint8_t* data, uint8_t* scales) const;
  void Decode(const uint8_t* data, const uint8_t* scales, float* x) const;
  // The same values of `count` <= 16 rows side by side: panel [dim][16], whose other columns are 0.
  void DecodePanel(const uint8_t* const* data, const uint8_t* const* scales, int64_t count,
                   float* panel) const;

 private:
  RowEncoding encoding_;
  int64_t dim_;
  int64_t rope_;
  int64_t data_bytes_;
  int64_t scale_bytes_;
};

}  // namespace cairn::kernels

#endif  // CAIRN_KERNELS_CPU_KV_ROWS_H_
