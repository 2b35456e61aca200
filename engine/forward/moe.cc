// Mixture of experts: hash or biased top-k routing, SwiGLU experts, one shared expert. Spec
// section 2.7.
//
// A token's routed sum runs over its experts by ascending id, then the shared expert is added: the
// same order whatever other tokens came along.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/forward/step.h"
#include "kernels/cpu/formats.h"
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

// What an expert computes for its rows, in floats of the step's workspace.
struct ExpertWork {
  const ExpertOp* expert = nullptr;
  // Null: all rows, with weights of 1.
  const std::vector<Route>* routes = nullptr;
  int64_t rows = 0;
  // [R, d]: the same input, rounded as each weight wants it, and room for the rows of `routes`.
  const float *from1 = nullptr, *from3 = nullptr;
  float *x1 = nullptr, *x3 = nullptr;
  float *gate = nullptr, *up = nullptr;  // [rows, width]
  float* y = nullptr;                    // [rows, d]
};

ExpertWork WorkOf(Step& step, const ExpertOp& expert, LinearInput& x,
                  const std::vector<Route>* routes) {
  const int64_t d = step.model.config.dim;
  const int64_t rows = routes == nullptr ? step.rows() : std::ssize(*routes);
  const int64_t width = expert.w1.w.n();
  ExpertWork work;
  work.expert = &expert;
  work.routes = routes;
  work.rows = rows;
  work.from1 = x.For(expert.w1);
  work.from3 = x.For(expert.w3);
  if (routes != nullptr) {
    work.x1 = step.workspace.Floats(rows * d);
    work.x3 = work.from3 == work.from1 ? work.x1 : step.workspace.Floats(rows * d);
  }
  work.gate = step.workspace.Floats(rows * width);
  work.up = step.workspace.Floats(rows * width);
  work.y = step.workspace.Floats(rows * d);
  return work;
}

// y = w2 . (silu(w1 x1) * (w3 x3) * weight). The weight is applied before w2, whose input rounding
// sees it.
void RunExpert(kernels::ThreadPool& pool, const ModelConfig& config, const ExpertWork& work) {
  const int64_t d = config.dim;
  const int64_t rows = work.rows;
  const ExpertOp& op = *work.expert;
  const int64_t width = op.w1.w.n();
  const auto limit = static_cast<float>(config.swiglu_limit);
  const float* x1 = work.from1;
  const float* x3 = work.from3;
  if (work.routes != nullptr) {
    const auto gather = [&](const float* from, float* to) {
      ForRows(pool, rows, 2 * d, [&](int64_t i) {
        const int64_t row = (*work.routes)[static_cast<size_t>(i)].row;
        std::memcpy(to + i * d, from + row * d, static_cast<size_t>(d) * sizeof(float));
      });
      return to;
    };
    x1 = gather(work.from1, work.x1);
    x3 = work.x3 == work.x1 ? x1 : gather(work.from3, work.x3);
  }
  Multiply(pool, op.w1, x1, rows, work.gate, width);
  Multiply(pool, op.w3, x3, rows, work.up, width);
  // An exponential takes as long as reading some floats.
  ForRows(pool, rows, 8 * width, [&](int64_t i) {
    float* gate = work.gate + i * width;
    const float weight =
        work.routes == nullptr ? 1.0f : (*work.routes)[static_cast<size_t>(i)].weight;
    kernels::SwiGlu(gate, work.up + i * width, width, limit, weight, gate);
    if (op.w2.fp8_input) kernels::SimulateFp8({gate, static_cast<size_t>(width)}, 128);
  });
  Multiply(pool, op.w2, work.gate, rows, work.y, d);
}

// out += y of the rows.
void AddRows(kernels::ThreadPool& pool, int64_t d, const ExpertWork& work, float* out) {
  ForRows(pool, work.rows, 3 * d, [&](int64_t i) {
    float* sum =
        out + (work.routes == nullptr ? i : (*work.routes)[static_cast<size_t>(i)].row) * d;
    const float* y = work.y + i * d;
    for (int64_t k = 0; k < d; ++k) sum[k] += y[k];
  });
}

// Multiplications of an expert's matrix below which whole experts are shared out, not each matrix's
// panels: the threads would meet three times an expert for some microseconds of work.
constexpr int64_t kSmallWork = 1'000'000;

// Experts with few rows each: side by side, a thread each, then added to `out` in their order.
void RunSmall(Step& step, std::vector<ExpertWork>& works, float* out) {
  step.pool.Run(std::ssize(works), [&](int64_t i) {
    RunExpert(Alone(), step.model.config, works[static_cast<size_t>(i)]);
  });
  for (const ExpertWork& work : works) AddRows(step.pool, step.model.config.dim, work, out);
  works.clear();
}

}  // namespace

absl::Status MoeLayer(Step& step, const MoeOp& op, const float* x, float* out) {
  const ModelConfig& config = step.model.config;
  const int64_t d = config.dim;
  const Workspace::Frame frame(step.workspace);
  LinearInput input(step, x, step.rows(), d);
  const std::vector<std::vector<Route>> by_expert = RouteRows(step, op, input);
  std::memset(out, 0, static_cast<size_t>(step.rows() * d) * sizeof(float));
  const std::vector<int32_t> wanted = Taken(by_expert);
  ExpertCache::Use experts(*step.model.experts, op.layer, wanted);
  // Computed while experts are being read.
  const ExpertWork shared = WorkOf(step, op.shared, input, nullptr);
  RunExpert(step.pool, config, shared);

  std::vector<ExpertWork> small;  // as many as may be held
  for (const int32_t e : wanted) {
    const std::vector<Route>& routes = by_expert[static_cast<size_t>(e)];
    CAIRN_ASSIGN_OR_RETURN(const ExpertOp* expert, experts.Next());
    const bool is_small = std::ssize(routes) * expert->w1.w.n() * d < kSmallWork;
    if (experts.all_stay() && is_small) {
      small.push_back(WorkOf(step, *expert, input, &routes));
      continue;
    }
    RunSmall(step, small, out);
    const Workspace::Frame inner(step.workspace);
    const ExpertWork work = WorkOf(step, *expert, input, &routes);
    RunExpert(step.pool, config, work);
    AddRows(step.pool, d, work, out);
  }
  RunSmall(step, small, out);
  AddRows(step.pool, d, shared, out);
  return absl::OkStatus();
}

}  // namespace cairn::engine
