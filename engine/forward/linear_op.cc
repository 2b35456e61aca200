#include "engine/forward/linear_op.h"

#include "kernels/cpu/linear.h"

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

absl::StatusOr<LinearKind> KindOf(const LinearWeight& w, Numerics numerics) {
  const WeightFormat format = FormatOf(w.weight.dtype);
  if (!RoundsInputs(numerics) || (format != WeightFormat::kFp8 && format != WeightFormat::kFp4)) {
    return LinearKind{};
  }
  if (w.in % 128 == 0) {
    return LinearKind{.fp8_input = true, .pairs = numerics == Numerics::kFullAmx};
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "full numerics round a linear's input in groups of 128, but a quantised weight has ", w.in,
      " inputs; use --numerics kvq"));
}

void Multiply(kernels::ThreadPool& pool, const LinearOp& op, const float* x, int64_t rows, float* y,
              int64_t ldy) {
  const bool pairs = op.pairs && op.w.takes_pairs();
  const auto product = pairs ? kernels::PairLinear : kernels::Linear;
  product(pool, op.w, x, op.w.k(), rows, y, ldy);
}

}  // namespace cairn::engine
