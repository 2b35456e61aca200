// The lightning indexer of CSA layers: which compressed rows a token attends to. Spec section 2.6.
//
// score(p, j) = sum over h of w_h * relu(q_h . k_j): each product by ascending dim (linear.h),
// heads ascending by fma. When all visible rows fit into index_topk they are all taken and nothing
// is scored.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>
#include <numeric>
#include <vector>

#include "engine/forward/step.h"
#include "kernels/cpu/formats.h"
#include "kernels/cpu/linear.h"
#include "kernels/cpu/streams.h"
#include "kernels/cpu/top_k.h"
#include "kernels/cpu/vector_ops.h"

namespace cairn::engine {
namespace {

constexpr int64_t kPanel = kernels::PackedMatrix::kPanel;
// Tokens scored together, of one span or of several: bounds their scores to kTokens * visible rows.
constexpr int64_t kTokens = 64;

struct Queries {
  const float* q;        // [R, heads, dim], rotated, transformed, rounded
  const float* weights;  // [R, heads]
};

// Scores of tokens [begin, begin + count) of a span against 16 rows from `row` on: out[token][ld]
// at column row.
void ScorePanel(const Step& step, const StepSpan& span, const ComponentSlot& slot,
                const Queries& queries, int64_t begin, int64_t count, int64_t row, int64_t rows_end,
                float* out, int64_t ld) {
  const ModelConfig& config = step.model.config;
  const int64_t dim = config.index_dim;
  const int64_t heads = config.index_heads;
  thread_local std::vector<float> panel;
  thread_local std::vector<float> tile;
  panel.resize(static_cast<size_t>(dim * kPanel));
  tile.assign(static_cast<size_t>(count * heads * kPanel), 0.0f);
  const int64_t n = std::min(kPanel, rows_end - row);
  span.session->ReadPanel(slot, step.model.layout->index_codec(), row, n, panel.data());
  const int64_t first = span.begin + begin;
  kernels::PanelMultiply(panel.data(), dim, queries.q + first * heads * dim, dim, count * heads,
                         tile.data(), kPanel);
  for (int64_t t = 0; t < count; ++t) {
    float sum[kPanel];
    kernels::CombineHeads(tile.data() + t * heads * kPanel, queries.weights + (first + t) * heads,
                          heads, sum);
    std::memcpy(out + t * ld + row, sum, static_cast<size_t>(n) * sizeof(float));
  }
}

// Some tokens of a span, which see at most rows_end rows.
struct Chunk {
  const StepSpan* span;
  int64_t begin, count, rows_end;
  float* scores = nullptr;                       // [count, rows_end]
  int64_t panels_before = 0, tokens_before = 0;  // of the chunks before it

  int64_t panels() const { return (rows_end + kPanel - 1) / kPanel; }
};

// Scores of several chunks' tokens, all panels and then all tokens in one loop each, so that
// sequences that decode a token each share the threads. Calls `take` with each row of the step and
// its scores, from any thread.
template <typename Take>
void SelectOf(Step& step, const ComponentSlot& slot, const Queries& queries,
              std::vector<Chunk>& chunks, const Take& take) {
  const Workspace::Frame frame(step.workspace);
  int64_t panels = 0, tokens = 0;
  for (Chunk& chunk : chunks) {
    chunk.scores = step.workspace.Floats(chunk.count * chunk.rows_end);
    chunk.panels_before = panels;
    chunk.tokens_before = tokens;
    panels += chunk.panels();
    tokens += chunk.count;
  }
  const auto of = [&](int64_t i, int64_t Chunk::*before) -> const Chunk& {
    const auto beyond = [before](int64_t at, const Chunk& chunk) { return at < chunk.*before; };
    return *std::prev(std::upper_bound(chunks.begin(), chunks.end(), i, beyond));
  };
  step.pool.Run(panels, [&](int64_t i) {
    const Chunk& chunk = of(i, &Chunk::panels_before);
    ScorePanel(step, *chunk.span, slot, queries, chunk.begin, chunk.count,
               (i - chunk.panels_before) * kPanel, chunk.rows_end, chunk.scores, chunk.rows_end);
  });
  step.pool.Run(tokens, [&](int64_t i) {
    const Chunk& chunk = of(i, &Chunk::tokens_before);
    const int64_t t = i - chunk.tokens_before;
    take(chunk.span->begin + chunk.begin + t, chunk.scores + t * chunk.rows_end);
  });
}

Queries MakeQueries(Step& step, const BlockOp& block, LinearInput& qr, LinearInput& x) {
  const ModelConfig& config = step.model.config;
  const IndexerOp& op = block.attn.indexer;
  const kernels::RopeTable& rope = step.model.rope(block.ratio);
  const int64_t dim = config.index_dim;
  const int64_t heads = config.index_heads;
  float* q = step.workspace.Floats(step.rows() * heads * dim);
  float* weights = step.workspace.Floats(step.rows() * heads);
  qr.Apply(op.wq_b, q);
  x.Apply(op.weights_proj, weights);
  const float scale =
      static_cast<float>(1.0 / std::sqrt(static_cast<double>(dim) * static_cast<double>(heads)));
  step.pool.Run(step.rows(), [&](int64_t r) {
    thread_local std::vector<float> cos_sin;
    cos_sin.resize(static_cast<size_t>(rope.dim()));
    rope.Angles(step.positions[static_cast<size_t>(r)], cos_sin.data());
    for (int64_t h = 0; h < heads; ++h) {
      float* head = q + (r * heads + h) * dim;
      kernels::Rotate(head + dim - rope.dim(), cos_sin.data(), rope.dim(), false);
      kernels::Hadamard(head, dim);
      if (step.model.numerics != Numerics::kPlain) {
        kernels::SimulateFp4({head, static_cast<size_t>(dim)}, 32);
      }
      weights[r * heads + h] *= scale;
    }
  });
  return {q, weights};
}

}  // namespace

void SelectRows(Step& step, const BlockOp& block, LinearInput& qr, LinearInput& x,
                std::vector<std::vector<int32_t>>& selected) {
  const int64_t topk = step.model.config.index_topk;
  const ComponentSlot& slot =
      step.model.layout->layers()[static_cast<size_t>(block.index)].index_rows;
  selected.resize(static_cast<size_t>(step.rows()));
  const auto visible = [&](int64_t position) { return (position + 1) / block.ratio; };
  bool any = false;
  for (int64_t r = 0; r < step.rows(); ++r) {
    const int64_t n = visible(step.positions[static_cast<size_t>(r)]);
    std::vector<int32_t>& rows = selected[static_cast<size_t>(r)];
    rows.resize(static_cast<size_t>(std::min(n, topk)));
    std::iota(rows.begin(), rows.end(), 0);
    any |= n > topk;
  }
  if (!any) return;

  const Workspace::Frame frame(step.workspace);
  const Queries queries = MakeQueries(step, block, qr, x);
  std::vector<Chunk> chunks;
  int64_t tokens = 0;
  const auto select = [&] {
    SelectOf(step, slot, queries, chunks, [&](int64_t r, const float* scores) {
      const int64_t n = visible(step.positions[static_cast<size_t>(r)]);
      if (n > topk) kernels::TopK(scores, n, topk, selected[static_cast<size_t>(r)]);
    });
    chunks.clear();
    tokens = 0;
  };
  for (const StepSpan& span : step.spans) {
    for (int64_t begin = 0; begin < span.count; begin += kTokens) {
      const int64_t count = std::min(kTokens, span.count - begin);
      const int64_t rows_end = visible(span.position + begin + count - 1);
      if (rows_end <= topk) continue;
      if (tokens + count > kTokens) select();
      chunks.push_back({.span = &span, .begin = begin, .count = count, .rows_end = rows_end});
      tokens += count;
    }
  }
  if (tokens > 0) select();
}

}  // namespace cairn::engine
