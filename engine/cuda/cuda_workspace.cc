#include "engine/cuda/cuda_workspace.h"

#include <algorithm>
#include <utility>

#include "engine/cuda/cuda_model.h"
#include "kernels/cuda/attention.h"

namespace cairn::engine {
namespace {

using kernels::cuda::DeviceBuffer;
using kernels::cuda::StepShape;

// Scores of so many bytes at a time; rows beyond are scored in turns.
constexpr int64_t kScoreBytes = 1ll << 30;

// Steps of more rows fill any device without sharing lists.
constexpr int64_t kFewRows = 256;

// Takes buffers one after the other; remembers the first that could not be had.
class Taker {
 public:
  template <typename T>
  void Take(DeviceBuffer<T>& buffer, int64_t count) {
    if (!status_.ok()) return;
    absl::StatusOr<DeviceBuffer<T>> made = DeviceBuffer<T>::Create(static_cast<size_t>(count));
    if (made.ok()) {
      buffer = *std::move(made);
    } else {
      status_ = made.status();
    }
  }
  void Take(QuantisedRoom& room, int64_t rows, int64_t k) {
    if (!status_.ok()) return;
    absl::StatusOr<QuantisedRoom> made = QuantisedRoom::Create(rows, k);
    if (made.ok()) {
      room = *std::move(made);
    } else {
      status_ = made.status();
    }
  }
  const absl::Status& status() const { return status_; }

 private:
  absl::Status status_;
};

void TakePlan(Taker& t, CudaWorkspace& w, const CudaSessions& sessions) {
  const int64_t rows = w.rows_max;
  // A step's spans times its longest are at most so many rows (CudaForward::Check); a span's last
  // group may be a part of one.
  const int64_t csa_groups = rows / 4 + w.spans_max;
  const int64_t hca_groups = rows / 128 + w.spans_max;
  const int64_t index_groups = rows / kernels::cuda::kIndexGroupTokensMax + w.spans_max;
  t.Take(w.tokens, rows);
  t.Take(w.spans, w.spans_max);
  t.Take(w.position, rows);
  t.Take(w.visible, rows);
  t.Take(w.window_row, rows);
  t.Take(w.window_list, rows);
  t.Take(w.csa_list, rows);
  t.Take(w.hca_list, rows);
  t.Take(w.csa_row, csa_groups);
  t.Take(w.csa_position, csa_groups);
  t.Take(w.hca_row, hca_groups);
  t.Take(w.hca_position, hca_groups);
  t.Take(w.csa_spans, sessions.csa_layers() * w.spans_max);
  t.Take(w.index_spans, sessions.csa_layers() * w.spans_max);
  t.Take(w.hca_spans, sessions.hca_layers() * w.spans_max);
  t.Take(w.index_slots, sessions.csa_layers() * csa_groups);
  t.Take(w.index_groups, sessions.csa_layers() * index_groups);
  t.Take(w.angles_window, rows * kernels::cuda::kAttentionRope);
  t.Take(w.angles_compressed, rows * kernels::cuda::kAttentionRope);
  t.Take(w.angles_csa, csa_groups * kernels::cuda::kAttentionRope);
  t.Take(w.angles_hca, hca_groups * kernels::cuda::kAttentionRope);
  t.Take(w.pooled, csa_groups * kernels::cuda::kAttentionDim);
  t.Take(w.index_pooled, csa_groups * kernels::cuda::kIndexDim);
  t.Take(w.keys, csa_groups * kernels::cuda::kIndexDim);
}

void TakeAttention(Taker& t, CudaWorkspace& w, const ModelConfig& c, const CudaSessions& sessions) {
  const int64_t rows = w.rows_max;
  const int64_t width = PaddedHeads(c.heads) * c.head_dim;
  t.Take(w.latent, rows * c.q_lora);
  t.Take(w.latent_codes, rows, c.q_lora);
  t.Take(w.q, rows * width);
  t.Take(w.heads, rows * width);
  t.Take(w.kv, rows * c.head_dim);
  t.Take(w.projected, rows * 4 * c.head_dim);  // CSA: kv and score of twice the width
  t.Take(w.index_projected, rows * 4 * c.index_dim);
  t.Take(w.index_q, rows * kernels::cuda::kIndexHeads * c.index_dim);
  t.Take(w.index_weights, rows * kernels::cuda::kIndexHeads);
  t.Take(w.index_prepared, rows * kernels::cuda::PreparedIndexQueryBytes());
  const int64_t row_bytes = sessions.csa_rows() * static_cast<int64_t>(sizeof(float));
  w.score_rows = std::clamp<int64_t>(kScoreBytes / row_bytes, 1, rows);
  // Whole groups, so that none is cut.
  w.score_rows = std::max<int64_t>(w.score_rows / kernels::cuda::kIndexGroupTokensMax, 1) *
                 kernels::cuda::kIndexGroupTokensMax;
  t.Take(w.scores, w.score_rows * sessions.csa_rows());
  t.Take(w.chosen, rows * c.index_topk);
  int64_t scratch = 0;
  for (const int64_t ratio : {int64_t{0}, int64_t{4}, int64_t{128}}) {
    const int64_t list = AttentionRowsMax(c, sessions, ratio);
    for (int64_t few = 1; few <= std::min(rows, kFewRows); ++few) {
      scratch =
          std::max(scratch, kernels::cuda::AttentionScratchBytes(few, PaddedHeads(c.heads), list));
    }
  }
  t.Take(w.attention_scratch, scratch);
  t.Take(w.u, rows * c.o_groups * c.o_lora);
  t.Take(w.u_codes, rows, c.o_groups * c.o_lora);
}

void TakeExperts(Taker& t, CudaWorkspace& w, const ModelConfig& c) {
  const int64_t rows = w.rows_max;
  const int64_t pairs = rows * c.experts_per_token;
  t.Take(w.gate, rows * PaddedExperts(c.experts));
  t.Take(w.expert_ids, pairs);
  t.Take(w.expert_weights, pairs);
  t.Take(w.offsets, PaddedExperts(c.experts) + 1);
  t.Take(w.token_of, pairs);
  t.Take(w.place_of, pairs);
  t.Take(w.weight_of, pairs);
  t.Take(w.tiles, kernels::cuda::ExpertScratchBytes(pairs, c.experts));
  t.Take(w.pair_codes, pairs, c.dim);
  t.Take(w.gate_up, pairs * 2 * c.expert_dim);
  t.Take(w.middle_codes, pairs, c.expert_dim);
  t.Take(w.shared_codes, rows, c.expert_dim);
  t.Take(w.made, pairs * c.dim);
  t.Take(w.shared_gate_up, rows * 2 * c.expert_dim);
  t.Take(w.shared, rows * c.dim);
}

}  // namespace

int64_t AttentionRowsMax(const ModelConfig& config, const CudaSessions& sessions, int64_t ratio) {
  if (ratio == 0) return config.window;
  return config.window + (ratio == 4 ? config.index_topk : sessions.hca_rows());
}

absl::StatusOr<QuantisedRoom> QuantisedRoom::Create(int64_t rows_max, int64_t k_max) {
  QuantisedRoom room;
  CAIRN_ASSIGN_OR_RETURN(room.codes_,
                         DeviceBuffer<uint8_t>::Create(static_cast<size_t>(rows_max * k_max)));
  CAIRN_ASSIGN_OR_RETURN(
      room.scales_,
      DeviceBuffer<float>::Create(static_cast<size_t>(kernels::cuda::ScaleCount(rows_max, k_max))));
  return room;
}

absl::StatusOr<std::unique_ptr<CudaWorkspace>> CudaWorkspace::Create(const ModelConfig& config,
                                                                     const CudaSessions& sessions,
                                                                     int64_t rows_max,
                                                                     int64_t spans_max) {
  auto w = std::make_unique<CudaWorkspace>();
  w->rows_max = rows_max;
  w->spans_max = spans_max;
  Taker t;
  TakePlan(t, *w, sessions);
  t.Take(w->streams, rows_max * config.hc * config.dim);
  t.Take(w->x, rows_max * config.dim);
  t.Take(w->f, rows_max * config.dim);
  t.Take(w->post, rows_max * config.hc);
  t.Take(w->comb, rows_max * config.hc * config.hc);
  t.Take(w->x_codes, rows_max, config.dim);
  TakeAttention(t, *w, config, sessions);
  TakeExperts(t, *w, config);
  t.Take(w->last, spans_max * config.hc * config.dim);
  t.Take(w->head_x, spans_max * config.dim);
  t.Take(w->logits, spans_max * config.vocab);
  t.Take(w->next, spans_max);
  CAIRN_RETURN_IF_ERROR(t.status());
  return w;
}

}  // namespace cairn::engine
