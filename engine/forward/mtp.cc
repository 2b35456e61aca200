#include "engine/forward/mtp.h"

#include <algorithm>
#include <cstring>

#include "engine/forward/step.h"

namespace cairn::engine {
namespace {

// X [R, hc, d] = e_proj . norm(embed(token)) in every stream + h_proj . norm(previous stream).
absl::StatusOr<float*> Combine(Step& step, const MtpOp& op,
                               const std::vector<const float*>& previous) {
  const ModelConfig& config = step.model.config;
  const int64_t d = config.dim;
  const int64_t n = step.rows();
  float* embedded = step.workspace.Floats(n * d);
  float* streams = step.workspace.Floats(n * config.hc * d);
  CAIRN_RETURN_IF_ERROR(step.model.embed.Rows(step.tokens, embedded));
  for (int64_t r = 0; r < n; ++r) {
    const size_t i = static_cast<size_t>(r);
    std::memcpy(streams + r * config.hc * d, previous[i],
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

absl::Status RunMtpBlock(const Model& model, kernels::ThreadPool& pool, Workspace& workspace,
                         std::span<MtpRows> all) {
  const ModelConfig& config = model.config;
  Step step{model, pool, workspace, {}, {}, {}};
  std::vector<const float*> previous;
  int64_t wanted = 0;
  for (const MtpRows& rows : all) {
    if (rows.count() == 0) continue;
    step.spans.push_back({rows.session, step.rows(), rows.count(), rows.position});
    step.tokens.insert(step.tokens.end(), rows.tokens.begin(), rows.tokens.end());
    for (int64_t i = rows.position; i < rows.end(); ++i) step.positions.push_back(i);
    previous.insert(previous.end(), rows.previous.begin(), rows.previous.end());
    wanted += rows.wanted;
  }
  const int64_t n = step.rows();
  if (n == 0) return absl::OkStatus();

  const Workspace::Frame frame(workspace);
  const MtpOp& op = *model.mtp;
  CAIRN_ASSIGN_OR_RETURN(float* streams, Combine(step, op, previous));
  if (wanted == 0) {
    AppendBlock(step, op.block, streams);
    return absl::OkStatus();
  }
  CAIRN_RETURN_IF_ERROR(RunBlock(step, op.block, streams));
  std::vector<HeadRow> heads;
  const int64_t width = config.hc * config.dim;
  const float* end = streams;
  for (MtpRows& rows : all) {
    end += rows.count() * width;
    rows.logits.resize(static_cast<size_t>(rows.wanted * config.vocab));
    for (int64_t r = 0; r < rows.wanted; ++r) {
      heads.push_back({end - (rows.wanted - r) * width, rows.logits.data() + r * config.vocab});
    }
  }
  RunHead(step, op.head, heads);
  return absl::OkStatus();
}

}  // namespace cairn::engine
