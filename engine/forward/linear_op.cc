#include "engine/forward/linear_op.h"

#include <algorithm>
#include <vector>

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
  const bool pairs = numerics == Numerics::kFullAmx && format != WeightFormat::kF32;
  if (!RoundsInputs(numerics) || (format != WeightFormat::kFp8 && format != WeightFormat::kFp4)) {
    return LinearKind{.pairs = pairs};
  }
  if (w.in % 128 == 0) return LinearKind{.fp8_input = true, .pairs = pairs};
  return absl::InvalidArgumentError(absl::StrCat(
      "full numerics round a linear's input in groups of 128, but a quantised weight has ", w.in,
      " inputs; use --numerics kvq"));
}

LinearKind OutputKind(Numerics numerics) {
  return {.fp8_input = false, .pairs = numerics == Numerics::kFullAmx};
}

void Multiply(kernels::ThreadPool& pool, const LinearOp& op, const float* x, int64_t rows, float* y,
              int64_t ldy) {
  const bool pairs = op.pairs && op.w.takes_pairs();
  const auto product = pairs ? kernels::PairLinear : kernels::Linear;
  product(pool, op.w, x, op.w.k(), rows, y, ldy);
}

void MultiplyEach(kernels::ThreadPool& pool, std::span<const LinearOp> ops, const float* x,
                  int64_t rows, float* y) {
  std::vector<kernels::LinearPart> parts;
  for (const LinearOp& op : ops) {
    const int64_t i = std::ssize(parts);
    parts.push_back({&op.w, x + i * op.w.k(), y + i * op.w.n()});
  }
  const bool pairs = std::all_of(ops.begin(), ops.end(),
                                 [](const LinearOp& op) { return op.pairs && op.w.takes_pairs(); });
  const auto product = pairs ? kernels::PairLinearParts : kernels::LinearParts;
  const kernels::PackedMatrix& w = ops.front().w;
  product(pool, parts, std::ssize(ops) * w.k(), rows, std::ssize(ops) * w.n());
}

}  // namespace cairn::engine
