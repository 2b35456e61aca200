// One transformer block, and the way from streams to logits. Spec sections 2.1 and 2.2.
#include <algorithm>

#include "engine/forward/step.h"

namespace cairn::engine {
namespace {

// Rows that share a reading of the vocabulary's weights: their logits are held twice meanwhile.
constexpr size_t kHeadRows = 64;

}  // namespace

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

void RunHead(Step& step, const HeadOp& head, std::span<const HeadRow> rows) {
  const ModelConfig& config = step.model.config;
  const int64_t width = config.hc * config.dim;
  for (; !rows.empty(); rows = rows.subspan(std::min(rows.size(), kHeadRows))) {
    const std::span<const HeadRow> part = rows.first(std::min(rows.size(), kHeadRows));
    const int64_t n = std::ssize(part);
    const Workspace::Frame frame(step.workspace);
    float* streams = step.workspace.Floats(n * width);
    float* x = step.workspace.Floats(n * config.dim);
    float* logits = step.workspace.Floats(n * config.vocab);
    for (int64_t r = 0; r < n; ++r) {
      std::copy_n(part[static_cast<size_t>(r)].streams, width, streams + r * width);
    }
    HcCollapse(step, head.hc, streams, n, x);
    NormRows(step, x, head.norm, n, x);
    LinearInput(step, x, n, config.dim).Apply(step.model.vocab_head, logits);
    for (int64_t r = 0; r < n; ++r) {
      std::copy_n(logits + r * config.vocab, config.vocab, part[static_cast<size_t>(r)].logits);
    }
  }
}

}  // namespace cairn::engine
