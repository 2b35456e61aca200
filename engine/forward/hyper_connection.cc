// Manifold-constrained hyper-connections: hc residual streams, mixed before and merged after each
// sub-layer. Spec section 2.2.
#include <algorithm>
#include <cmath>

#include "engine/forward/step.h"
#include "kernels/cpu/linear.h"
#include "kernels/cpu/streams.h"
#include "kernels/cpu/vector_ops.h"

namespace cairn::engine {
namespace {

// Sinkhorn's divisions take as long as reading about so many floats.
constexpr int64_t kSinkhornFloats = 4096;

// mix [rows, n] = (fn . streams) * rsqrt(mean(streams^2) + eps).
void Mixes(Step& step, const HyperConnectionOp& op, const float* streams, int64_t rows,
           float* mix) {
  const ModelConfig& config = step.model.config;
  const int64_t width = config.hc * config.dim;
  const int64_t n = op.fn.n();
  kernels::Linear(step.pool, op.fn, streams, width, rows, mix, n);
  ForRows(step.pool, rows, width, [&](int64_t r) {
    const float mean = kernels::SumSquares(streams + r * width, width) / static_cast<float>(width);
    const float scale = 1.0f / std::sqrt(mean + static_cast<float>(config.norm_eps));
    for (int64_t i = 0; i < n; ++i) mix[r * n + i] *= scale;
  });
}

// c [hc, hc]: softmax over each row plus eps, then columns and rows in turn (columns `iters` times
// in all).
void Sinkhorn(float* c, int64_t hc, int64_t iters, float eps) {
  for (int64_t j = 0; j < hc; ++j) {
    float* row = c + j * hc;
    const float top = *std::max_element(row, row + hc);
    float sum = 0.0f;
    for (int64_t k = 0; k < hc; ++k) sum += row[k] = kernels::Exp(row[k] - top);
    for (int64_t k = 0; k < hc; ++k) row[k] = row[k] / sum + eps;
  }
  const auto normalise = [&](int64_t outer, int64_t inner) {
    for (int64_t a = 0; a < hc; ++a) {
      float sum = 0.0f;
      for (int64_t b = 0; b < hc; ++b) sum += c[a * outer + b * inner];
      for (int64_t b = 0; b < hc; ++b) c[a * outer + b * inner] /= sum + eps;
    }
  };
  normalise(1, hc);  // each column, over rows
  for (int64_t i = 1; i < iters; ++i) {
    normalise(hc, 1);
    normalise(1, hc);
  }
}

}  // namespace

void HcMix(Step& step, const HyperConnectionOp& op, const float* streams, int64_t rows, float* x,
           float* post, float* comb) {
  const ModelConfig& config = step.model.config;
  const int64_t hc = config.hc;
  const int64_t n = op.fn.n();
  const float eps = static_cast<float>(config.hc_eps);
  const Workspace::Frame frame(step.workspace);
  float* mix = step.workspace.Floats(rows * n);
  Mixes(step, op, streams, rows, mix);
  ForRows(step.pool, rows, hc * config.dim + kSinkhornFloats, [&](int64_t r) {
    const float* m = mix + r * n;
    float pre[kernels::kStreamsMax];
    for (int64_t j = 0; j < hc; ++j) {
      const size_t i = static_cast<size_t>(j);
      pre[j] = kernels::Sigmoid(m[j] * op.scale[0] + op.base[i]) + eps;
      post[r * hc + j] =
          2.0f * kernels::Sigmoid(m[hc + j] * op.scale[1] + op.base[static_cast<size_t>(hc) + i]);
    }
    float* c = comb + r * hc * hc;
    for (int64_t i = 0; i < hc * hc; ++i) {
      c[i] = m[2 * hc + i] * op.scale[2] + op.base[static_cast<size_t>(2 * hc + i)];
    }
    Sinkhorn(c, hc, config.hc_sinkhorn_iters, eps);
    kernels::CollapseStreams(pre, streams + r * hc * config.dim, hc, config.dim,
                             x + r * config.dim);
  });
}

void HcMerge(Step& step, const float* f, const float* post, const float* comb, int64_t rows,
             float* streams) {
  const int64_t hc = step.model.config.hc;
  const int64_t dim = step.model.config.dim;
  ForRows(step.pool, rows, 2 * hc * dim, [&](int64_t r) {
    kernels::MergeStreams(f + r * dim, post + r * hc, comb + r * hc * hc, hc, dim,
                          streams + r * hc * dim);
  });
}

void HcCollapse(Step& step, const HyperConnectionOp& op, const float* streams, int64_t rows,
                float* x) {
  const ModelConfig& config = step.model.config;
  const int64_t hc = config.hc;
  const Workspace::Frame frame(step.workspace);
  float* mix = step.workspace.Floats(rows * hc);
  Mixes(step, op, streams, rows, mix);
  ForRows(step.pool, rows, hc * config.dim, [&](int64_t r) {
    float pre[kernels::kStreamsMax];
    for (int64_t j = 0; j < hc; ++j) {
      pre[j] = kernels::Sigmoid(mix[r * hc + j] * op.scale[0] + op.base[static_cast<size_t>(j)]) +
               static_cast<float>(config.hc_eps);
    }
    kernels::CollapseStreams(pre, streams + r * hc * config.dim, hc, config.dim,
                             x + r * config.dim);
  });
}

}  // namespace cairn::engine
