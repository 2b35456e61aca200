// step.h: what the files of forward/ share during one step: the rows being computed and the helpers
// for linears.
//
// A step computes `rows` token rows at once: contiguous spans of one or more sequences. Row r has a
// token and a position; the letters in shapes: R rows, d dim, hc streams, H heads, c head_dim.
//
// Threads: one step at a time a Forward.
#ifndef CAIRN_ENGINE_FORWARD_STEP_H_
#define CAIRN_ENGINE_FORWARD_STEP_H_

#include <algorithm>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "engine/forward/model.h"
#include "engine/forward/workspace.h"
#include "engine/state/session_state.h"
#include "kernels/cpu/thread_pool.h"

namespace cairn::engine {

struct StepSpan {
  SessionState* session = nullptr;
  int64_t begin = 0;  // first row
  int64_t count = 0;
  int64_t position = 0;  // of the first row
  bool guessed = false;  // the last row may be taken back
};

struct Step {
  const Model& model;
  kernels::ThreadPool& pool;
  Workspace& workspace;
  std::vector<StepSpan> spans;
  std::vector<int32_t> tokens;     // [R]
  std::vector<int64_t> positions;  // [R]
  // Of a step that replays, which is one span: where its stored rows end (state/replay_plan.h).
  // Rows are read, not made, and of the compressors' state only what holds there is. 0: no replay.
  int64_t replay_end = 0;

  int64_t rows() const { return static_cast<int64_t>(tokens.size()); }
};

// One linear input that several linears read; rounded to FP8 at most once, and only if one of them
// asks.
class LinearInput {
 public:
  LinearInput(Step& step, const float* x, int64_t rows, int64_t width)
      : step_(step),
        plain_(x),
        room_(step.workspace.Floats(rows * width)),
        rows_(rows),
        width_(width) {}
  // y [rows, op.w.n()], row stride ldy.
  void Apply(const LinearOp& op, float* y, int64_t ldy);
  void Apply(const LinearOp& op, float* y) { Apply(op, y, op.w.n()); }
  int64_t rows() const { return rows_; }
  // Rounded or not, as `op` wants it.
  const float* For(const LinearOp& op);

 private:
  Step& step_;
  const float* plain_;
  float* room_;  // taken at once, so that it outlives the frames of whoever asks first
  bool rounded_ = false;
  int64_t rows_;
  int64_t width_;
};

// body(r) for each row, shared by the threads where that pays: `floats` are what it reads and
// writes of a row.
template <typename Body>
void ForRows(kernels::ThreadPool& pool, int64_t rows, int64_t floats, const Body& body) {
  // Sharing a loop costs about as much as this many.
  constexpr int64_t kFloatsPerTask = 4096;
  constexpr int64_t kTasksPerThread = 4;
  const int64_t least = std::max<int64_t>(kFloatsPerTask / std::max<int64_t>(floats, 1), 1);
  const int64_t each = std::max(least, rows / (kTasksPerThread * pool.threads()));
  pool.Run((rows + each - 1) / each, [&](int64_t task) {
    const int64_t end = std::min(rows, (task + 1) * each);
    for (int64_t r = task * each; r < end; ++r) body(r);
  });
}

// A pool of the calling thread alone, for what runs side by side with others.
kernels::ThreadPool& Alone();

// body(pool, i) for each span i: those of one token side by side, a thread each, where there are
// enough of them; the others one after the other, by all threads.
template <typename Body>
void ForSpans(Step& step, const Body& body) {
  std::vector<size_t> alone, others;
  for (size_t i = 0; i < step.spans.size(); ++i) {
    (step.spans[i].count == 1 ? alone : others).push_back(i);
  }
  if (std::ssize(alone) < step.pool.threads()) {
    others.insert(others.end(), alone.begin(), alone.end());
    alone.clear();
  }
  step.pool.Run(std::ssize(alone),
                [&](int64_t i) { body(Alone(), alone[static_cast<size_t>(i)]); });
  for (const size_t i : others) body(step.pool, i);
}

// RmsNorm of each row.
void NormRows(Step& step, const float* x, const std::vector<float>& weight, int64_t rows,
              float* out);

// ---- one idea a file ----

// forward.cc. streams [tokens, hc, d]: the token's embedding in every stream. Fails if it cannot be
// read.
absl::Status Embed(const Model& model, std::span<const int32_t> tokens, float* streams);

// hyper_connection.cc. streams [rows, hc, d]. Mix: x [rows, d] for the sub-layer, post [rows, hc],
// comb [rows, hc, hc]. Merge: streams[k] = post[k] * f + sum_j comb[j][k] * streams[j].
void HcMix(Step& step, const HyperConnectionOp& op, const float* streams, int64_t rows, float* x,
           float* post, float* comb);
void HcMerge(Step& step, const float* f, const float* post, const float* comb, int64_t rows,
             float* streams);
// The collapse before a head: x [rows, d].
void HcCollapse(Step& step, const HyperConnectionOp& op, const float* streams, int64_t rows,
                float* x);

// attention.cc. x [R, d] normalised; out [R, d]. Appends to the sessions' windows and rows.
void AttentionLayer(Step& step, const BlockOp& block, const float* x, float* out);
// Only what later tokens need of it: window rows, and what RunCompressor makes.
void AppendWindow(Step& step, const BlockOp& block, const float* x);

// compressor.cc. Runs one compressor over the step: updates the sessions' partial and overlap state
// and appends rows.
enum class CompressorRole : uint8_t { kMain, kIndexer };
void RunCompressor(Step& step, const BlockOp& block, CompressorRole role, const float* x);

// indexer.cc. For each row the compressed rows it may attend to, ascending. qr [R, q_lora]
// normalised latent, x [R, d].
void SelectRows(Step& step, const BlockOp& block, LinearInput& qr, LinearInput& x,
                std::vector<std::vector<int32_t>>& selected);

// moe.cc. x [R, d] normalised; out [R, d]. Fails if an expert cannot be read.
absl::Status MoeLayer(Step& step, const MoeOp& op, const float* x, float* out);

// block.cc. One transformer block over streams [R, hc, d], in place. Fails as MoeLayer.
absl::Status RunBlock(Step& step, const BlockOp& block, float* streams);
// Only what later tokens need of it: no attention, no experts; `streams` are left as they are.
void AppendBlock(Step& step, const BlockOp& block, const float* streams);
// Collapse, norm and vocabulary head of rows from anywhere.
struct HeadRow {
  const float* streams;  // [hc, d]
  float* logits;         // [vocab]
};
void RunHead(Step& step, const HeadOp& head, std::span<const HeadRow> rows);

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_FORWARD_STEP_H_
