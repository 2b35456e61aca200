#include "engine/forward/mtp.h"

#include <algorithm>
#include <cstring>

#include "engine/forward/step.h"

namespace cairn::engine {
namespace {

// X [R, hc, d] = e_proj . norm(embed(token)) in every stream + h_proj . norm(previous stream).
float* Combine(Step& step, const MtpOp& op, const MtpRows& rows) {
  const ModelConfig& config = step.model.config;
  const int64_t d = config.dim;
  const int64_t n = step.rows();
  float* embedded = step.workspace.Floats(n * d);
  float* streams = step.workspace.Floats(n * config.hc * d);
  for (int64_t r = 0; r < n; ++r) {
    const size_t i = static_cast<size_t>(r);
    std::memcpy(embedded + r * d, step.model.embed.data() + step.tokens[i] * d,
                static_cast<size_t>(d) * sizeof(float));
    std::memcpy(streams + r * config.hc * d, rows.previous[i],
                static_cast<size_t>(config.hc * d) * sizeof(float));
  }
  NormRows(step, embedded, op.enorm, n, embedded);
  NormRows(step, streams, op.hnorm, n * config.hc, streams);
  float* e = step.workspace.Floats(n * d);
  float* x = step.workspace.Floats(n * config.hc * d);
  LinearInput(step, embedded, n, d).Apply(op.e_proj, e);
  LinearInput(step, streams, n * config.hc, d).Apply(op.h_proj, x);
  for (int64_t r = 0; r < n; ++r) {
    for (int64_t j = 0; j < config.hc; ++j) {
      float* stream = x + (r * config.hc + j) * d;
      for (int64_t k = 0; k < d; ++k) stream[k] = e[r * d + k] + stream[k];
    }
  }
  return x;
}

}  // namespace

std::vector<float> RunMtpBlock(const Model& model, kernels::ThreadPool& pool, Workspace& workspace,
                               const MtpRows& rows, int64_t logits_from) {
  const int64_t n = static_cast<int64_t>(rows.previous.size());
  if (n == 0) return {};
  const ModelConfig& config = model.config;
  Step step{model, pool, workspace, {{rows.session, 0, n, rows.position}}, {}, {}};
  step.tokens.assign(rows.tokens.begin(), rows.tokens.end());
  for (int64_t i = 0; i < n; ++i) step.positions.push_back(rows.position + i);

  const Workspace::Frame frame(workspace);
  const MtpOp& op = *model.mtp;
  float* streams = Combine(step, op, rows);
  const int64_t wanted = std::clamp<int64_t>(rows.position + n - logits_from, 0, n);
  if (wanted == 0) {
    AppendBlock(step, op.block, streams);
    return {};
  }
  RunBlock(step, op.block, streams);
  std::vector<float> logits(static_cast<size_t>(wanted * config.vocab));
  RunHead(step, op.head, streams + (n - wanted) * config.hc * config.dim, wanted, logits.data());
  return logits;
}

}  // namespace cairn::engine
