#include "engine/forward/linear_op.h"

namespace cairn::engine {

using kernels::WeightFormat;

WeightFormat FormatOf(DType type) {
  switch (type) {
    case DType::kF8E4M3:
      return WeightFormat::kFp8;
    case DType::kI8:
      return WeightFormat::kFp4;
    case DType::kBF16:
      return WeightFormat::kBf16;
    default:
      return WeightFormat::kF32;
  }
}

kernels::RawMatrix RawOf(const LinearWeight& w) {
  return {FormatOf(w.weight.dtype), w.out, w.in, w.weight.bytes.data(), w.scale.bytes.data()};
}

absl::StatusOr<bool> RoundsInput(const LinearWeight& w, Numerics numerics) {
  const WeightFormat format = FormatOf(w.weight.dtype);
  if (numerics != Numerics::kFull ||
      (format != WeightFormat::kFp8 && format != WeightFormat::kFp4)) {
    return false;
  }
  if (w.in % 128 == 0) return true;
  return absl::InvalidArgumentError(absl::StrCat(
      "full numerics round a linear's input in groups of 128, but a quantised weight has ", w.in,
      " inputs; use --numerics kvq"));
}

}  // namespace cairn::engine
