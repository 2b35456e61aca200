#include "engine/reference/hyper_connection.h"

#include <algorithm>
#include <cmath>

namespace cairn::engine::reference {
namespace {

// Step 1: mix = (fn . v) * rsqrt(mean(v^2) + eps), v all streams as one vector.
Rows Mixes(const Setup& setup, const HyperConnectionWeights& w, const Rows& streams) {
  const LinearWeight fn{w.fn, {}, w.fn.shape[0], w.fn.shape[1]};
  Rows mix = LinearSlice(fn, 0, fn.out, streams);
  for (int64_t r = 0; r < streams.count; ++r) {
    const float mean = Dot(streams[r], streams[r]) / static_cast<float>(streams.width);
    const float scale = 1.0f / std::sqrt(mean + static_cast<float>(setup.config.norm_eps));
    for (float& v : mix[r]) v *= scale;
  }
  return mix;
}

// Step 3.
void Sinkhorn(const Setup& setup, std::span<float> c) {
  const size_t hc = static_cast<size_t>(setup.config.hc);
  const float eps = static_cast<float>(setup.config.hc_eps);
  const auto rows = [&](float added) {
    for (size_t j = 0; j < hc; ++j) {
      float sum = added;
      for (size_t k = 0; k < hc; ++k) sum += c[j * hc + k];
      for (size_t k = 0; k < hc; ++k) c[j * hc + k] /= sum;
    }
  };
  const auto columns = [&] {
    for (size_t k = 0; k < hc; ++k) {
      float sum = eps;
      for (size_t j = 0; j < hc; ++j) sum += c[j * hc + k];
      for (size_t j = 0; j < hc; ++j) c[j * hc + k] /= sum;
    }
  };
  for (size_t j = 0; j < hc; ++j) {
    const std::span<float> row = c.subspan(j * hc, hc);
    const float top = *std::max_element(row.begin(), row.end());
    for (float& v : row) v = std::exp(v - top);
  }
  rows(0.0f);  // with the exponentials, a softmax
  for (float& v : c) v += eps;
  columns();
  for (int64_t i = 1; i < setup.config.hc_sinkhorn_iters; ++i) {
    rows(eps);
    columns();
  }
}

// sum_j pre[j] * streams[j].
void Collapse(std::span<const float> pre, std::span<const float> streams, std::span<float> x) {
  for (size_t i = 0; i < x.size(); ++i) {
    for (size_t j = 0; j < pre.size(); ++j) x[i] += pre[j] * streams[j * x.size() + i];
  }
}

}  // namespace

HcMixed HcMix(const Setup& setup, const HyperConnectionWeights& w, const Rows& streams) {
  const int64_t hc = setup.config.hc;
  const size_t n = static_cast<size_t>(hc);
  const Rows mix = Mixes(setup, w, streams);
  const std::vector<float> base = Values(w.base);
  const std::vector<float> scale = Values(w.scale);
  HcMixed out{Rows(streams.count, setup.config.dim), Rows(streams.count, hc),
              Rows(streams.count, hc * hc)};
  for (int64_t r = 0; r < streams.count; ++r) {
    const std::span<const float> m = mix[r];
    std::vector<float> pre(n);
    for (size_t j = 0; j < n; ++j) {
      pre[j] = Sigmoid(m[j] * scale[0] + base[j]) + static_cast<float>(setup.config.hc_eps);
      out.post[r][j] = 2.0f * Sigmoid(m[n + j] * scale[1] + base[n + j]);
    }
    for (size_t i = 0; i < n * n; ++i) {
      out.comb[r][i] = m[2 * n + i] * scale[2] + base[2 * n + i];
    }
    Sinkhorn(setup, out.comb[r]);
    Collapse(pre, streams[r], out.x[r]);
  }
  return out;
}

void HcMerge(const Setup& setup, const Rows& f, const HcMixed& mixed, Rows& streams) {
  const size_t hc = static_cast<size_t>(setup.config.hc);
  const size_t d = static_cast<size_t>(setup.config.dim);
  const Rows old = streams;
  for (int64_t r = 0; r < streams.count; ++r) {
    for (size_t k = 0; k < hc; ++k) {
      for (size_t i = 0; i < d; ++i) {
        float v = mixed.post[r][k] * f[r][i];
        for (size_t j = 0; j < hc; ++j) v += mixed.comb[r][j * hc + k] * old[r][j * d + i];
        streams[r][k * d + i] = v;
      }
    }
  }
}

Rows HcCollapse(const Setup& setup, const HyperConnectionWeights& w, const Rows& streams) {
  const Rows mix = Mixes(setup, w, streams);
  const std::vector<float> base = Values(w.base);
  const std::vector<float> scale = Values(w.scale);
  Rows x(streams.count, setup.config.dim);
  for (int64_t r = 0; r < streams.count; ++r) {
    std::vector<float> pre(base.size());
    for (size_t j = 0; j < pre.size(); ++j) {
      pre[j] = Sigmoid(mix[r][j] * scale[0] + base[j]) + static_cast<float>(setup.config.hc_eps);
    }
    Collapse(pre, streams[r], x[r]);
  }
  return x;
}

}  // namespace cairn::engine::reference
