// One transformer block, and the way from streams to logits. Spec sections 2.1 and 2.2.
#include "engine/forward/step.h"

namespace cairn::engine {

absl::Status RunBlock(Step& step, const BlockOp& block, float* streams) {
  const ModelConfig& config = step.model.config;
  const int64_t rows = step.rows();
  const Workspace::Frame frame(step.workspace);
  float* x = step.workspace.Floats(rows * config.dim);
  float* f = step.workspace.Floats(rows * config.dim);
  float* post = step.workspace.Floats(rows * config.hc);
  float* comb = step.workspace.Floats(rows * config.hc * config.hc);

  HcMix(step, block.hc_attn, streams, rows, x, post, comb);
  NormRows(step, x, block.attn_norm, rows, x);
  AttentionLayer(step, block, x, f);
  HcMerge(step, f, post, comb, rows, streams);

  HcMix(step, block.hc_ffn, streams, rows, x, post, comb);
  NormRows(step, x, block.ffn_norm, rows, x);
  CAIRN_RETURN_IF_ERROR(MoeLayer(step, block.ffn, x, f));
  HcMerge(step, f, post, comb, rows, streams);
  return absl::OkStatus();
}

void AppendBlock(Step& step, const BlockOp& block, const float* streams) {
  const ModelConfig& config = step.model.config;
  const int64_t rows = step.rows();
  const Workspace::Frame frame(step.workspace);
  float* x = step.workspace.Floats(rows * config.dim);
  float* post = step.workspace.Floats(rows * config.hc);
  float* comb = step.workspace.Floats(rows * config.hc * config.hc);
  HcMix(step, block.hc_attn, streams, rows, x, post, comb);
  NormRows(step, x, block.attn_norm, rows, x);
  AppendWindow(step, block, x);
}

void RunHead(Step& step, const HeadOp& head, const float* streams, int64_t rows, float* logits) {
  const Workspace::Frame frame(step.workspace);
  float* x = step.workspace.Floats(rows * step.model.config.dim);
  HcCollapse(step, head.hc, streams, rows, x);
  NormRows(step, x, head.norm, rows, x);
  LinearInput(step, x, rows, step.model.config.dim).Apply(step.model.vocab_head, logits);
}

}  // namespace cairn::engine
