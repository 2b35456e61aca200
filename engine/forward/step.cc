#include "engine/forward/step.h"

#include <cstring>

#include "kernels/cpu/formats.h"
#include "kernels/cpu/vector_ops.h"

namespace cairn::engine {
kernels::ThreadPool& Alone() {
  thread_local kernels::ThreadPool pool(1);
  return pool;
}

const float* LinearInput::For(const LinearOp& op) {
  if (!op.fp8_input) return plain_;
  if (!rounded_) {
    ForRows(step_.pool, rows_, 2 * width_, [&](int64_t r) {
      std::memcpy(room_ + r * width_, plain_ + r * width_,
                  static_cast<size_t>(width_) * sizeof(float));
      kernels::SimulateFp8({room_ + r * width_, static_cast<size_t>(width_)}, 128);
    });
    rounded_ = true;
  }
  return room_;
}

void LinearInput::Apply(const LinearOp& op, float* y, int64_t ldy) {
  Multiply(step_.pool, op, For(op), rows_, y, ldy);
}

void NormRows(Step& step, const float* x, const std::vector<float>& weight, int64_t rows,
              float* out) {
  const int64_t n = static_cast<int64_t>(weight.size());
  const float eps = static_cast<float>(step.model.config.norm_eps);
  ForRows(step.pool, rows, 2 * n,
          [&](int64_t r) { kernels::RmsNorm(x + r * n, weight.data(), n, eps, out + r * n); });
}

}  // namespace cairn::engine
