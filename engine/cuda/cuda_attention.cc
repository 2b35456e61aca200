// Spec sections 2.4 and 2.6.
#include <algorithm>

#include "engine/cuda/cuda_step.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/indexer.h"
#include "kernels/cuda/kv_writer.h"
#include "kernels/cuda/norms.h"
#include "kernels/cuda/top_k.h"

namespace cairn::engine {
namespace {

using kernels::cuda::kIndexGroupTokensMax;
using kernels::cuda::Linear;
using kernels::cuda::QuantisedRows;

// What rows are chosen by: keys of the groups that the step closes, w.index_weights of its tokens.
absl::Status MakeKeys(const CudaStep& step, const CudaBlock& block, CudaLayerPlace place,
                      const uint16_t* x) {
  CAIRN_RETURN_IF_ERROR(CompressCudaKeys(step, block, place, x));
  return Linear(step.stream, block.attn.index_weights.view,
                kernels::cuda::Bf16Rows{x, step.rows, step.model.config.dim, 1},
                {step.w.index_weights.get(), kernels::cuda::kIndexHeads});
}

// The token's row of the window, and rows of the groups that the step closes.
absl::Status MakeRows(const CudaStep& step, const CudaBlock& block, CudaLayerPlace place,
                      const QuantisedRows& input, const float* angles, const uint16_t* x) {
  CudaWorkspace& w = step.w;
  const CudaLayerState& state = step.sessions.layer(place.index);
  CAIRN_RETURN_IF_ERROR(
      Linear(step.stream, block.attn.wkv.view, input, {w.kv.get(), step.model.config.head_dim}));
  CAIRN_RETURN_IF_ERROR(kernels::cuda::WriteKvRows(
      step.stream, w.kv.get(), block.attn.kv_norm.get(), angles, w.window_row.get(), step.rows,
      step.norm_eps(), {state.window.data.get(), state.window.scales.get()}));
  return CompressCudaRows(step, block, place, x);
}

// w.q [R, H, 512]
absl::Status MakeQueries(const CudaStep& step, const CudaAttention& op, const QuantisedRows& latent,
                         const float* angles) {
  const ModelConfig& c = step.model.config;
  const int64_t heads = PaddedHeads(c.heads);
  uint16_t* const q = step.w.q.get();
  CAIRN_RETURN_IF_ERROR(Linear(step.stream, op.wq_b.view, latent, {q, heads * c.head_dim}));
  return kernels::cuda::NormRotateHeads(step.stream, q, angles, step.rows, heads, step.norm_eps(),
                                        q);
}

// w.chosen [R, index_topk]: the compressed rows that each token attends to. Behind MakeKeys.
absl::Status ChooseRows(CudaStep& step, const CudaBlock& block, CudaLayerPlace place,
                        const QuantisedRows& latent) {
  CudaWorkspace& w = step.w;
  const kernels::cuda::Stream stream = step.stream;
  const int64_t heads = kernels::cuda::kIndexHeads;
  const int64_t dim = step.model.config.index_dim;
  const int64_t topk = step.shape.index_topk;
  CAIRN_RETURN_IF_ERROR(
      Linear(stream, block.attn.index_wq_b.view, latent, {w.index_q.get(), heads * dim}));
  CAIRN_RETURN_IF_ERROR(step.Join(CudaBranch::kKeys));
  CAIRN_RETURN_IF_ERROR(kernels::cuda::PrepareIndexQueries(
      {step.rows, w.index_q.get(), w.index_weights.get(), w.angles_compressed.get()},
      w.index_prepared.get(), stream));

  // As many tokens at a time as there is room for scores. Several turns only for one span or spans
  // of one token (CudaForward::Check): there a group's first token follows from its number.
  const int64_t groups = step.shape.spans * step.shape.index_groups();
  const int64_t group_tokens = std::min(step.shape.span_tokens_max, kIndexGroupTokensMax);
  const int64_t groups_a_turn = std::max<int64_t>(w.score_rows / group_tokens, 1);
  const int64_t stride = step.sessions.csa_rows();
  for (int64_t begin = 0; begin < groups; begin += groups_a_turn) {
    const int64_t first = begin * group_tokens;
    const int64_t tokens = std::min(groups_a_turn * group_tokens, step.rows - first);
    // Scores of token t lie at t * stride behind this.
    float* scores = w.scores.get() - first * stride;
    CAIRN_RETURN_IF_ERROR(kernels::cuda::ScoreIndexRows(
        {w.index_prepared.get(), w.index_groups.get() + place.of_kind * groups + begin,
         std::min(groups_a_turn, groups - begin), group_tokens, w.visible.get(), scores, stride},
        stream));
    CAIRN_RETURN_IF_ERROR(
        kernels::cuda::TopK({tokens, w.scores.get(), stride, w.visible.get() + first, stride, topk,
                             w.chosen.get() + first * topk},
                            stream));
  }
  return absl::OkStatus();
}

absl::Status Attend(CudaStep& step, const CudaBlock& block, CudaLayerPlace place,
                    const float* angles) {
  CudaWorkspace& w = step.w;
  const CudaLayerState& state = step.sessions.layer(place.index);
  kernels::cuda::AttentionBatch batch;
  batch.tokens = step.rows;
  batch.heads = PaddedHeads(step.model.config.heads);
  batch.q = w.q.get();
  batch.window = {state.window.data.get(), state.window.scales.get()};
  batch.ring = static_cast<int32_t>(step.shape.ring);
  batch.lists = w.window_list.get();
  if (block.ratio > 0) {
    batch.compressed = {state.rows.data.get(), state.rows.scales.get()};
    batch.lists = block.ratio == 4 ? w.csa_list.get() : w.hca_list.get();
  }
  if (block.ratio == 4) {
    batch.indices = w.chosen.get();
    batch.index_stride = step.shape.index_topk;
  }
  batch.sink = block.attn.sink.get();
  batch.angles = angles;
  batch.out = w.heads.get();
  batch.rows_max = AttentionRowsMax(step.model.config, step.sessions, block.ratio);
  if (kernels::cuda::AttentionScratchBytes(batch.tokens, batch.heads, batch.rows_max) > 0) {
    batch.scratch = w.attention_scratch.get();
  }
  return kernels::cuda::Attend(batch, step.stream);
}

// What Linear takes of several groups at once: so many outputs each, or a multiple.
constexpr int64_t kGroupOutputs = 256;

// w.u [R, o_groups * o_lora]: each group of heads by its own rows of wo_a.
absl::Status ProjectGroups(CudaStep& step, const CudaAttention& op) {
  const ModelConfig& c = step.model.config;
  const int64_t width = PaddedHeads(c.heads) * c.head_dim;
  const int64_t outputs = c.o_groups * c.o_lora;
  if (c.o_lora % kGroupOutputs == 0) {
    return Linear(step.stream, op.wo_a.view,
                  kernels::cuda::Bf16Rows{step.w.heads.get(), step.rows, width, c.o_groups},
                  {step.w.u.get(), outputs});
  }
  const int64_t k = op.wo_a.view.k;
  kernels::cuda::DeviceMatrix group = op.wo_a.view;
  group.n = c.o_lora;
  for (int64_t g = 0; g < c.o_groups; ++g) {
    group.values = op.wo_a.view.values + g * c.o_lora * k * static_cast<int64_t>(sizeof(uint16_t));
    CAIRN_RETURN_IF_ERROR(
        Linear(step.stream, group,
               kernels::cuda::Bf16Rows{step.w.heads.get() + g * k, step.rows, width, 1},
               {step.w.u.get() + g * c.o_lora, outputs}));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CudaAttentionLayer(CudaStep& step, const CudaBlock& block, CudaLayerPlace place,
                                const uint16_t* x) {
  const ModelConfig& c = step.model.config;
  const CudaAttention& op = block.attn;
  CudaWorkspace& w = step.w;
  const kernels::cuda::Stream stream = step.stream;
  const int64_t latent_outputs = c.o_groups * c.o_lora;
  const float* angles = (block.ratio == 0 ? w.angles_window : w.angles_compressed).get();

  const QuantisedRows input = w.x_codes.Rows(step.rows, c.dim);
  const bool chooses = block.ratio == 4;
  CAIRN_ASSIGN_OR_RETURN(const CudaStep beside, step.Fork(CudaBranch::kRows));
  CAIRN_RETURN_IF_ERROR(MakeRows(beside, block, place, input, angles, x));
  if (chooses) {
    CAIRN_ASSIGN_OR_RETURN(const CudaStep keys, step.Fork(CudaBranch::kKeys));
    CAIRN_RETURN_IF_ERROR(MakeKeys(keys, block, place, x));
  }

  CAIRN_RETURN_IF_ERROR(Linear(stream, op.wq_a.view, input, {w.latent.get(), c.q_lora}));
  const QuantisedRows latent = w.latent_codes.Rows(step.rows, c.q_lora);
  CAIRN_RETURN_IF_ERROR(NormQuantise(step, w.latent.get(), op.q_norm, nullptr, latent));
  if (chooses) {
    CAIRN_ASSIGN_OR_RETURN(const CudaStep queries, step.Fork(CudaBranch::kQueries));
    CAIRN_RETURN_IF_ERROR(MakeQueries(queries, op, latent, angles));
    CAIRN_RETURN_IF_ERROR(ChooseRows(step, block, place, latent));
    CAIRN_RETURN_IF_ERROR(step.Join(CudaBranch::kQueries));
  } else {
    CAIRN_RETURN_IF_ERROR(MakeQueries(step, op, latent, angles));
  }
  CAIRN_RETURN_IF_ERROR(step.Join(CudaBranch::kRows));
  CAIRN_RETURN_IF_ERROR(step.Join(CudaBranch::kMixing));  // here nothing starts early
  CAIRN_RETURN_IF_ERROR(Attend(step, block, place, angles));

  CAIRN_RETURN_IF_ERROR(ProjectGroups(step, op));
  const QuantisedRows output = w.u_codes.Rows(step.rows, latent_outputs);
  CAIRN_RETURN_IF_ERROR(kernels::cuda::QuantiseRows(stream, w.u.get(), nullptr, output));
  return Linear(stream, op.wo_b.view, output, {w.f.get(), c.dim});
}

}  // namespace cairn::engine
