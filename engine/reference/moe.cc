#include "engine/reference/moe.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

namespace cairn::engine::reference {
namespace {

int64_t TokenExpert(const TensorView& tid2eid, size_t i) {
  if (tid2eid.dtype == DType::kI64) {
    int64_t id;
    std::memcpy(&id, tid2eid.bytes.data() + 8 * i, sizeof(id));
    return id;
  }
  int32_t id;
  std::memcpy(&id, tid2eid.bytes.data() + 4 * i, sizeof(id));
  return id;
}

// By the token's id in hash layers, otherwise the best of score + bias, lower id first among
// equals.
std::vector<int64_t> Choose(const Setup& setup, const MoeWeights& w, int32_t token,
                            std::span<const float> scores) {
  const size_t k = static_cast<size_t>(setup.config.experts_per_token);
  std::vector<int64_t> chosen;
  if (!w.tid2eid.empty()) {
    for (size_t i = 0; i < k; ++i) {
      chosen.push_back(TokenExpert(w.tid2eid, static_cast<size_t>(token) * k + i));
    }
    return chosen;
  }
  const std::vector<float> bias = Values(w.bias);
  chosen.resize(scores.size());
  std::iota(chosen.begin(), chosen.end(), 0);
  std::stable_sort(chosen.begin(), chosen.end(), [&](int64_t a, int64_t b) {
    const size_t i = static_cast<size_t>(a);
    const size_t j = static_cast<size_t>(b);
    return scores[i] + bias[i] > scores[j] + bias[j];
  });
  chosen.resize(k);
  return chosen;
}

// The weight comes before w2, so that the rounding of w2's input sees it. weights: one a row.
Rows Expert(const Setup& setup, const ExpertWeights& w, const Rows& x,
            const std::vector<float>& weights) {
  Rows a = Linear(setup, w.w1, x);
  const Rows b = Linear(setup, w.w3, x);
  const float limit =
      setup.config.swiglu_limit > 0 ? static_cast<float>(setup.config.swiglu_limit) : HUGE_VALF;
  for (int64_t r = 0; r < a.count; ++r) {
    for (size_t i = 0; i < a[r].size(); ++i) {
      const float gate = std::min(a[r][i], limit);
      const float up = std::clamp(b[r][i], -limit, limit);
      a[r][i] = gate * Sigmoid(gate) * up * weights[static_cast<size_t>(r)];
    }
  }
  return Linear(setup, w.w2, a);
}

}  // namespace

// Every expert runs over every token; where it was not chosen it weighs nothing.
Rows Moe(const Setup& setup, const MoeWeights& w, std::span<const int32_t> tokens, const Rows& x) {
  Rows scores = Linear(setup, w.gate, x);
  for (float& s : scores.values) s = std::sqrt(std::log1p(std::exp(s)));
  const size_t n = static_cast<size_t>(x.count);
  std::vector<std::vector<float>> weights(w.experts.size(), std::vector<float>(n, 0.0f));
  for (size_t t = 0; t < n; ++t) {
    const std::span<const float> s = scores[static_cast<int64_t>(t)];
    const std::vector<int64_t> chosen = Choose(setup, w, tokens[t], s);
    float sum = 0.0f;
    for (const int64_t e : chosen) sum += s[static_cast<size_t>(e)];
    for (const int64_t e : chosen) {
      weights[static_cast<size_t>(e)][t] =
          s[static_cast<size_t>(e)] / sum * static_cast<float>(setup.config.route_scale);
    }
  }
  Rows out = Expert(setup, w.shared, x, std::vector<float>(n, 1.0f));
  for (size_t e = 0; e < w.experts.size(); ++e) {
    const Rows y = Expert(setup, w.experts[e], x, weights[e]);
    for (size_t i = 0; i < out.values.size(); ++i) out.values[i] += y.values[i];
  }
  return out;
}

}  // namespace cairn::engine::reference
