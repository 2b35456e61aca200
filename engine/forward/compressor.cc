// The compressors of CSA (ratio 4, with overlap) and HCA (ratio 128) layers, and of the indexer.
// Spec section 2.5.
//
// A row pools the tokens of its group channel by channel; with ratio 4 also the previous group's,
// read from the first half of their width. Tokens come from three places: this step, the partial
// group before it, and (previous group only) the overlap. GroupReader hides which.
#include <algorithm>
#include <cstring>

#include "engine/forward/step.h"
#include "kernels/cpu/vector_ops.h"

namespace cairn::engine {
namespace {

constexpr int64_t kCandidatesMax = 128;

// kv and score of token t (absolute), both op.width wide; for tokens before the partial group only
// the first dim values.
class GroupReader {
 public:
  GroupReader(const CompressorOp& op, const CompressorState& state, const float* kv,
              const float* score, int64_t position)
      : op_(op), state_(state), kv_(kv), score_(score), position_(position) {}

  int64_t position() const { return position_; }
  const float* Kv(int64_t t) const {
    if (t >= position_) return kv_ + (t - position_) * op_.width;
    const int64_t base = position_ / op_.ratio * op_.ratio;
    if (t >= base) return state_.partial.kv.data() + (t - base) * op_.width;
    return state_.overlap.kv(t - (base - op_.ratio), op_.dim);
  }
  const float* Score(int64_t t) const {
    if (t >= position_) return score_ + (t - position_) * op_.width;
    const int64_t base = position_ / op_.ratio * op_.ratio;
    if (t >= base) return state_.partial.score.data() + (t - base) * op_.width;
    return state_.overlap.score(t - (base - op_.ratio), op_.dim);
  }

 private:
  const CompressorOp& op_;
  const CompressorState& state_;
  const float* kv_;
  const float* score_;
  int64_t position_;
};

void PoolGroup(const CompressorOp& op, const GroupReader& reader, int64_t group, float* out) {
  const float* kv[kCandidatesMax];
  const float* score[kCandidatesMax];
  int64_t n = 0;
  const int64_t first = group * op.ratio;
  const bool overlapping = op.width != op.dim;
  if (overlapping && group > 0) {
    for (int64_t t = first - op.ratio; t < first; ++t, ++n) {
      kv[n] = reader.Kv(t);
      score[n] = reader.Score(t);
    }
  }
  const int64_t own = overlapping ? op.dim : 0;
  for (int64_t t = first; t < first + op.ratio; ++t, ++n) {
    kv[n] = reader.Kv(t) + own;
    score[n] = reader.Score(t) + own;
  }
  kernels::SoftmaxPool(kv, score, n, op.dim, out);
}

// The state after the step: tokens of the open group, and the last whole group's overlap halves.
CompressorState NextState(const CompressorOp& op, const GroupReader& reader,
                          const CompressorState& old, int64_t end) {
  CompressorState next;
  const int64_t base = end / op.ratio * op.ratio;
  for (int64_t t = base; t < end; ++t) {
    next.partial.kv.insert(next.partial.kv.end(), reader.Kv(t), reader.Kv(t) + op.width);
    next.partial.score.insert(next.partial.score.end(), reader.Score(t),
                              reader.Score(t) + op.width);
  }
  next.overlap.values.resize(old.overlap.values.size());
  if (!next.overlap.values.empty() && base > 0) {
    float* values = next.overlap.values.data();
    for (int64_t i = 0; i < op.ratio; ++i) {
      const int64_t t = base - op.ratio + i;
      std::memcpy(values + i * op.dim, reader.Kv(t), static_cast<size_t>(op.dim) * sizeof(float));
      std::memcpy(values + (op.ratio + i) * op.dim, reader.Score(t),
                  static_cast<size_t>(op.dim) * sizeof(float));
    }
  }
  return next;
}

// The first row of the step that the compressor is run for. In a replay only the last group before
// its end leaves anything that is not stored, and that an overlap.
int64_t FirstRow(const Step& step, const CompressorOp& op) {
  if (step.replay_end == 0) return 0;
  if (op.width == op.dim) return step.rows();
  return std::clamp<int64_t>(step.replay_end - op.ratio - step.positions[0], 0, step.rows());
}

// Makes `state` the one after the step. While the group stays open its tokens are added to what is
// there: in HCA layers most steps would copy up to 127 others.
void Advance(const CompressorOp& op, const GroupReader& reader, int64_t end,
             CompressorState& state) {
  if (end / op.ratio != reader.position() / op.ratio) {
    state = NextState(op, reader, state, end);
    return;
  }
  PartialState& partial = state.partial;
  for (int64_t t = reader.position(); t < end; ++t) {
    partial.kv.insert(partial.kv.end(), reader.Kv(t), reader.Kv(t) + op.width);
    partial.score.insert(partial.score.end(), reader.Score(t), reader.Score(t) + op.width);
  }
}

}  // namespace

void RunCompressor(Step& step, const BlockOp& block, CompressorRole role, const float* x) {
  const Model& model = step.model;
  const bool main = role == CompressorRole::kMain;
  const CompressorOp& op = main ? block.attn.compressor : block.attn.indexer.compressor;
  const kernels::RowCodec& codec = main ? model.layout->row_codec() : model.layout->index_codec();
  const LayerSlots& slots = model.layout->layers()[static_cast<size_t>(block.index)];
  const ComponentSlot& slot = main ? slots.rows : slots.index_rows;
  const kernels::RopeTable& rope = model.rope(block.ratio);
  const int64_t rope_dim = rope.dim();
  const int64_t skipped = FirstRow(step, op);
  const int64_t rows = step.rows() - skipped;
  if (rows == 0) return;

  const Workspace::Frame frame(step.workspace);
  float* kv = step.workspace.Floats(rows * op.width);
  float* score = step.workspace.Floats(rows * op.width);
  LinearInput input(step, x + skipped * model.config.dim, rows, model.config.dim);
  input.Apply(op.wkv, kv);
  input.Apply(op.wgate, score);
  ForRows(step.pool, rows, 2 * op.width, [&](int64_t r) {
    const int64_t position = step.positions[static_cast<size_t>(skipped + r)];
    const float* ape = op.ape.data() + position % op.ratio * op.width;
    for (int64_t e = 0; e < op.width; ++e) score[r * op.width + e] += ape[e];
  });
  ForSpans(step, [&](kernels::ThreadPool& pool, size_t s) {
    const StepSpan& span = step.spans[s];
    LayerState& layer = span.session->layer(block.index);
    CompressorState& state = main ? layer.main : layer.indexer;
    const GroupReader reader(op, state, kv + span.begin * op.width, score + span.begin * op.width,
                             span.position + skipped);
    const int64_t end = span.position + span.count;
    // Blocks are made in order before rows are written by several threads.
    const int64_t first = span.position / op.ratio;
    const int64_t last = step.replay_end == 0 ? end / op.ratio : first;
    for (int64_t j = first; j < last; ++j) span.session->rows().Write(j / slot.rows);
    pool.Run(last - first, [&](int64_t i) {
      thread_local std::vector<float> row;
      thread_local std::vector<float> cos_sin;
      row.resize(static_cast<size_t>(op.dim));
      cos_sin.resize(static_cast<size_t>(rope_dim));
      PoolGroup(op, reader, first + i, row.data());
      kernels::RmsNorm(row.data(), op.norm.data(), op.dim,
                       static_cast<float>(model.config.norm_eps), row.data());
      rope.Angles((first + i) * op.ratio, cos_sin.data());
      kernels::Rotate(row.data() + op.dim - rope_dim, cos_sin.data(), rope_dim, false);
      if (!main) kernels::Hadamard(row.data(), op.dim);
      span.session->WriteRow(slot, codec, first + i, row.data());
    });
    if (span.guessed && end % op.ratio == 0) {
      CompressorUndo& undo = span.session->undo().layer(block.index);
      (main ? undo.main : undo.indexer) = NextState(op, reader, state, end - 1);
    }
    Advance(op, reader, end, state);
  });
}

}  // namespace cairn::engine
