#include "engine/forward/step.h"

#include <cstring>

#include "kernels/cpu/formats.h"
#include "kernels/cpu/vector_ops.h"

namespace cairn::engine {
namespace {

constexpr int64_t kRowsPerTask = 8;

}  // namespace

const float* LinearInput::For(const LinearOp& op) {
  if (!op.fp8_input) return plain_;
  if (!rounded_) {
    const int64_t tasks = (rows_ + kRowsPerTask - 1) / kRowsPerTask;
    step_.pool.Run(tasks, [&](int64_t task) {
      const int64_t begin = task * kRowsPerTask * width_;
      const int64_t count = std::min(kRowsPerTask * width_, rows_ * width_ - begin);
      std::memcpy(room_ + begin, plain_ + begin, static_cast<size_t>(count) * sizeof(float));
      kernels::SimulateFp8({room_ + begin, static_cast<size_t>(count)}, 128);
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
  for (int64_t r = 0; r < rows; ++r)
    kernels::RmsNorm(x + r * n, weight.data(), n, eps, out + r * n);
}

}  // namespace cairn::engine
