// Mixture of experts: hash or biased top-k routing, SwiGLU experts, one shared expert. Spec
// section 2.7.
//
// A token's routed sum runs over its experts by ascending id, then the shared expert is added: the
// same order whatever other tokens came along.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/forward/step.h"
#include "kernels/cpu/top_k.h"
#include "kernels/cpu/vector_ops.h"

namespace cairn::engine {
namespace {

struct Route {
  int64_t row;
  float weight;
};

float SqrtSoftplus(float g) {
  const double x = static_cast<double>(g);
  return static_cast<float>(std::sqrt(std::max(x, 0.0) + std::log1p(std::exp(-std::fabs(x)))));
}

// by_expert[e]: the rows that go to expert e, ascending, with their weights.
std::vector<std::vector<Route>> RouteRows(Step& step, const MoeOp& op, LinearInput& x) {
  const ModelConfig& config = step.model.config;
  const int64_t experts = config.experts;
  const int64_t k = config.experts_per_token;
  const Workspace::Frame frame(step.workspace);
  float* scores = step.workspace.Floats(step.rows() * experts);
  x.Apply(op.gate, scores);
  std::vector<std::vector<Route>> by_expert(static_cast<size_t>(experts));
  std::vector<float> biased(static_cast<size_t>(experts));
  std::vector<int32_t> chosen;
  for (int64_t r = 0; r < step.rows(); ++r) {
    float* s = scores + r * experts;
    for (int64_t e = 0; e < experts; ++e) s[e] = SqrtSoftplus(s[e]);
    if (!op.tid2eid.empty()) {
      const auto from = op.tid2eid.begin() + step.tokens[static_cast<size_t>(r)] * k;
      chosen.assign(from, from + k);
      std::sort(chosen.begin(), chosen.end());
    } else {
      for (int64_t e = 0; e < experts; ++e) {
        biased[static_cast<size_t>(e)] = s[e] + op.bias[static_cast<size_t>(e)];
      }
      kernels::TopK(biased.data(), experts, k, chosen);
    }
    float sum = 0.0f;
    for (const int32_t e : chosen) sum += s[e];
    for (const int32_t e : chosen) {
      by_expert[static_cast<size_t>(e)].push_back(
          {r, s[e] / sum * static_cast<float>(config.route_scale)});
    }
  }
  return by_expert;
}

// Those that any row goes to, ascending.
std::vector<int32_t> Taken(const std::vector<std::vector<Route>>& by_expert) {
  std::vector<int32_t> taken;
  for (size_t e = 0; e < by_expert.size(); ++e) {
    if (!by_expert[e].empty()) taken.push_back(static_cast<int32_t>(e));
  }
  return taken;
}

void GatherRows(const float* x, int64_t width, const std::vector<Route>& routes, float* out) {
  for (size_t i = 0; i < routes.size(); ++i) {
    std::memcpy(out + static_cast<int64_t>(i) * width, x + routes[i].row * width,
                static_cast<size_t>(width) * sizeof(float));
  }
}

// y [rows, d] = w2 . (silu(w1 x1) * (w3 x3) * weight). x1 and x3 are the same input, rounded as
// each weight wants it. The weight is applied before w2, whose input rounding sees it. `routes`
// null: weights of 1.
void RunExpert(Step& step, const ExpertOp& op, const float* x1, const float* x3, int64_t rows,
               const std::vector<Route>* routes, float* y) {
  const ModelConfig& config = step.model.config;
  const int64_t width = op.w1.w.n();
  const float limit = static_cast<float>(config.swiglu_limit);
  float* gate = step.workspace.Floats(rows * width);
  float* up = step.workspace.Floats(rows * width);
  Multiply(step.pool, op.w1, x1, rows, gate, width);
  Multiply(step.pool, op.w3, x3, rows, up, width);
  for (int64_t i = 0; i < rows; ++i) {
    const float weight = routes == nullptr ? 1.0f : (*routes)[static_cast<size_t>(i)].weight;
    kernels::SwiGlu(gate + i * width, up + i * width, width, limit, weight, gate + i * width);
  }
  LinearInput(step, gate, rows, width).Apply(op.w2, y);
}

}  // namespace

absl::Status MoeLayer(Step& step, const MoeOp& op, const float* x, float* out) {
  const int64_t d = step.model.config.dim;
  const int64_t rows = step.rows();
  const Workspace::Frame frame(step.workspace);
  LinearInput input(step, x, rows, d);
  const std::vector<std::vector<Route>> by_expert = RouteRows(step, op, input);
  std::memset(out, 0, static_cast<size_t>(rows * d) * sizeof(float));
  const std::vector<int32_t> wanted = Taken(by_expert);
  ExpertCache::Use experts(*step.model.experts, op.layer, wanted);
  float* shared = step.workspace.Floats(rows * d);  // computed while experts are being read
  {
    const Workspace::Frame inner(step.workspace);
    RunExpert(step, op.shared, input.For(op.shared.w1), input.For(op.shared.w3), rows, nullptr,
              shared);
  }
  for (const int32_t e : wanted) {
    const std::vector<Route>& routes = by_expert[static_cast<size_t>(e)];
    const int64_t n = static_cast<int64_t>(routes.size());
    CAIRN_ASSIGN_OR_RETURN(const ExpertOp* taken, experts.Next());
    const ExpertOp& expert = *taken;
    const float* from1 = input.For(expert.w1);
    const float* from3 = input.For(expert.w3);
    const Workspace::Frame inner(step.workspace);
    float* x1 = step.workspace.Floats(n * d);
    GatherRows(from1, d, routes, x1);
    float* x3 = x1;
    if (from3 != from1) {
      x3 = step.workspace.Floats(n * d);
      GatherRows(from3, d, routes, x3);
    }
    float* y = step.workspace.Floats(n * d);
    RunExpert(step, expert, x1, x3, n, &routes, y);
    for (int64_t i = 0; i < n; ++i) {
      float* sum = out + routes[static_cast<size_t>(i)].row * d;
      for (int64_t k = 0; k < d; ++k) sum[k] += y[i * d + k];
    }
  }
  for (int64_t i = 0; i < rows * d; ++i) out[i] += shared[i];
  return absl::OkStatus();
}

}  // namespace cairn::engine
