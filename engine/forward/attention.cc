// Attention of one layer: low-rank queries, one K = V row a token, window + compressed rows in one
// softmax, grouped output projection. Spec section 2.4.
#include "kernels/cpu/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/forward/step.h"
#include "kernels/cpu/vector_ops.h"

namespace cairn::engine {
namespace {

// cos and sin of every row's position: [R, rope].
const float* RowAngles(Step& step, const kernels::RopeTable& rope) {
  float* angles = step.workspace.Floats(step.rows() * rope.dim());
  // A sine takes as long as reading some dozen floats.
  ForRows(step.pool, step.rows(), 16 * rope.dim(), [&](int64_t r) {
    rope.Angles(step.positions[static_cast<size_t>(r)], angles + r * rope.dim());
  });
  return angles;
}

// kv [R, c]: normalised and rotated, not yet rounded to what is stored.
float* WindowRows(Step& step, const BlockOp& block, LinearInput& x, const float* angles) {
  const ModelConfig& config = step.model.config;
  const int64_t c = config.head_dim;
  float* kv = step.workspace.Floats(step.rows() * c);
  x.Apply(block.attn.wkv, kv);
  NormRows(step, kv, block.attn.kv_norm, step.rows(), kv);
  ForRows(step.pool, step.rows(), 2 * config.rope_dim, [&](int64_t r) {
    kernels::Rotate(kv + (r + 1) * c - config.rope_dim, angles + r * config.rope_dim,
                    config.rope_dim, false);
  });
  return kv;
}

// q [R, H, c]: per-head norm without weight, then rotation.
void FinishQueries(Step& step, const float* angles, float* q) {
  const ModelConfig& config = step.model.config;
  const int64_t c = config.head_dim;
  step.pool.Run(step.rows(), [&](int64_t r) {
    for (int64_t h = 0; h < config.heads; ++h) {
      float* head = q + (r * config.heads + h) * c;
      kernels::RmsNorm(head, nullptr, c, static_cast<float>(config.norm_eps), head);
      kernels::Rotate(head + c - config.rope_dim, angles + r * config.rope_dim, config.rope_dim,
                      false);
    }
  });
}

// What the rows of a span attend to, decoded from what is stored: its window in the order of
// positions (the rows before the span that its first token sees, then the span's own), and for HCA,
// where every token sees a prefix of them, all compressed rows.
struct SpanRows {
  const StepSpan* span;
  int64_t before;
  float* window;  // [before + count, c]
  int64_t dense_count;
  float* dense;  // [dense_count, c]
};

int64_t RowsBefore(const Step& step, const StepSpan& span) {
  return std::min(span.position, step.model.config.window - 1);
}
int64_t DenseRows(const BlockOp& block, const StepSpan& span) {
  return block.ratio == 128 ? (span.position + span.count) / block.ratio : 0;
}
int64_t RowCount(const Step& step, const BlockOp& block, const StepSpan& span) {
  return RowsBefore(step, span) + span.count + DenseRows(block, span);
}

// room: [RowCount, c].
SpanRows RowsIn(const Step& step, const BlockOp& block, const StepSpan& span, float* room) {
  const int64_t before = RowsBefore(step, span);
  return {&span, before, room, DenseRows(block, span),
          room + (before + span.count) * step.model.config.head_dim};
}

// How many rows ahead of their decoding rows are asked for.
constexpr int64_t kRowsAhead = 3;

// Decodes rows [begin, end) of those before the span, then the compressed ones.
void ReadRows(const Step& step, const BlockOp& block, const SpanRows& rows, int64_t begin,
              int64_t end) {
  const int64_t c = step.model.config.head_dim;
  const ComponentSlot& slot = step.model.layout->layers()[static_cast<size_t>(block.index)].rows;
  const StepSpan& span = *rows.span;
  const WindowRing& ring = span.session->layer(block.index).window;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t j = i - rows.before;
    if (i + kRowsAhead < rows.before) {
      ring.Prefetch(span.position + j + kRowsAhead);
    } else if (i + kRowsAhead < end) {
      span.session->PrefetchRow(slot, j + kRowsAhead);
    }
    if (j < 0) {
      ring.Get(span.position + j, rows.window + i * c);
    } else {
      span.session->ReadRow(slot, step.model.layout->row_codec(), j, rows.dense + j * c);
    }
  }
}

// The span's own rows, as they are stored. The ring then holds its last ones, so all before them
// have been read.
void PutRows(const Step& step, const BlockOp& block, const SpanRows& rows, const float* kv) {
  const int64_t c = step.model.config.head_dim;
  const StepSpan& span = *rows.span;
  WindowRing& ring = span.session->layer(block.index).window;
  for (int64_t i = 0; i < span.count; ++i) {
    ring.Put(span.position + i, kv + (span.begin + i) * c);
    ring.Get(span.position + i, rows.window + (rows.before + i) * c);
  }
}

// Heads of row r of the step, one of the span's.
void AttendRow(const Step& step, const BlockOp& block, const SpanRows& rows, int64_t r,
               const std::vector<std::vector<int32_t>>& selected, const float* angles,
               const float* q, float* out) {
  const ModelConfig& config = step.model.config;
  const int64_t c = config.head_dim;
  const float scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(c)));
  const ComponentSlot& slot = step.model.layout->layers()[static_cast<size_t>(block.index)].rows;
  thread_local std::vector<float> scratch;
  thread_local std::vector<float> gathered;
  const int64_t i = r - rows.span->begin;
  const int64_t position = rows.span->position + i;
  const int64_t seen = std::min(position + 1, config.window);
  const kernels::RowSegment near{rows.window + (rows.before + i + 1 - seen) * c, seen};
  kernels::RowSegment far;
  if (block.ratio == 128) {
    far = {rows.dense, (position + 1) / block.ratio};
  } else if (block.ratio == 4) {
    const std::vector<int32_t>& chosen = selected[static_cast<size_t>(r)];
    far.count = static_cast<int64_t>(chosen.size());
    if (gathered.size() < static_cast<size_t>(far.count * c))
      gathered.resize(static_cast<size_t>(far.count * c));
    for (int64_t j = 0; j < far.count; ++j) {
      if (j + kRowsAhead < far.count) {
        rows.span->session->PrefetchRow(slot, chosen[static_cast<size_t>(j + kRowsAhead)]);
      }
      rows.span->session->ReadRow(slot, step.model.layout->row_codec(),
                                  chosen[static_cast<size_t>(j)], gathered.data() + j * c);
    }
    far.rows = gathered.data();
  }
  const int64_t width = config.heads * c;
  float* heads = out + r * width;
  kernels::Attend(q + r * width, config.heads, c, near, far, scale, block.attn.sink.data(), heads,
                  scratch);
  for (int64_t h = 0; h < config.heads; ++h) {
    kernels::Rotate(heads + (h + 1) * c - config.rope_dim, angles + r * config.rope_dim,
                    config.rope_dim, true);
  }
}

// What all rows of a step have of one layer.
struct Heads {
  const float* kv;
  const std::vector<std::vector<int32_t>>& selected;
  const float* angles;
  const float* q;
  float* out;  // [R, H, c]
};

// Spans of one token: whoever decodes its rows attends to them, while they are in its core's cache.
void AttendAlone(Step& step, const BlockOp& block, std::span<const StepSpan* const> spans,
                 const Heads& heads) {
  step.pool.Run(std::ssize(spans), [&](int64_t i) {
    const StepSpan& span = *spans[static_cast<size_t>(i)];
    thread_local std::vector<float> room;
    const auto floats =
        static_cast<size_t>(RowCount(step, block, span) * step.model.config.head_dim);
    if (room.size() < floats) room.resize(floats);
    const SpanRows rows = RowsIn(step, block, span, room.data());
    ReadRows(step, block, rows, 0, rows.before + rows.dense_count);
    PutRows(step, block, rows, heads.kv);
    AttendRow(step, block, rows, span.begin, heads.selected, heads.angles, heads.q, heads.out);
  });
}

// Rows that are decoded at a time, unless one sequence alone has more: 32 MiB of 512 dims.
constexpr int64_t kDecodedRowsMax = 16384;
constexpr int64_t kRowsPerTask = 32;

// As many of `spans` as may be decoded at a time: all threads decode, then all attend. Returns how
// many these were.
size_t AttendTogether(Step& step, const BlockOp& block, std::span<const StepSpan* const> spans,
                      const Heads& heads) {
  const Workspace::Frame frame(step.workspace);
  std::vector<SpanRows> taken;
  for (int64_t count = 0; taken.size() < spans.size() && count < kDecodedRowsMax;) {
    const StepSpan& span = *spans[taken.size()];
    const int64_t rows = RowCount(step, block, span);
    float* room = step.workspace.Floats(rows * step.model.config.head_dim);
    taken.push_back(RowsIn(step, block, span, room));
    count += rows;
  }
  struct Part {
    const SpanRows* rows;
    int64_t begin;
  };
  std::vector<Part> parts, rows;
  for (const SpanRows& span : taken) {
    for (int64_t i = 0; i < span.before + span.dense_count; i += kRowsPerTask) {
      parts.push_back({&span, i});
    }
    for (int64_t i = 0; i < span.span->count; ++i) rows.push_back({&span, span.span->begin + i});
  }
  step.pool.Run(std::ssize(parts), [&](int64_t task) {
    const auto& [span, begin] = parts[static_cast<size_t>(task)];
    ReadRows(step, block, *span, begin,
             std::min(begin + kRowsPerTask, span->before + span->dense_count));
  });
  step.pool.Run(std::ssize(taken),
                [&](int64_t i) { PutRows(step, block, taken[static_cast<size_t>(i)], heads.kv); });
  step.pool.Run(std::ssize(rows), [&](int64_t i) {
    const auto& [span, r] = rows[static_cast<size_t>(i)];
    AttendRow(step, block, *span, r, heads.selected, heads.angles, heads.q, heads.out);
  });
  return taken.size();
}

// A core's second-level cache: 1 MiB of 512 dims.
constexpr int64_t kAloneRowsMax = 512;

void AttendSpans(Step& step, const BlockOp& block, const Heads& heads) {
  std::vector<const StepSpan*> alone, together;
  for (const StepSpan& span : step.spans) {
    const bool fits = span.count == 1 && RowCount(step, block, span) <= kAloneRowsMax;
    (fits ? alone : together).push_back(&span);
  }
  if (std::ssize(alone) < step.pool.threads()) {
    together.insert(together.end(), alone.begin(), alone.end());
    alone.clear();
  }
  if (!alone.empty()) AttendAlone(step, block, alone, heads);
  for (size_t first = 0; first < together.size();) {
    first += AttendTogether(step, block, std::span(together).subspan(first), heads);
  }
}

// out [R, d] = wo_b . concat over groups of wo_a[g] . heads of g.
void ProjectOutput(Step& step, const BlockOp& block, const float* heads, float* out) {
  const ModelConfig& config = step.model.config;
  const int64_t latent = config.o_groups * config.o_lora;
  float* u = step.workspace.Floats(step.rows() * latent);
  MultiplyEach(step.pool, block.attn.wo_a, heads, step.rows(), u);
  LinearInput(step, u, step.rows(), latent).Apply(block.attn.wo_b, out);
}

void RunCompressors(Step& step, const BlockOp& block, const float* x) {
  if (block.ratio > 0) RunCompressor(step, block, CompressorRole::kMain, x);
  if (block.ratio == 4) RunCompressor(step, block, CompressorRole::kIndexer, x);
}

}  // namespace

void AttentionLayer(Step& step, const BlockOp& block, const float* x, float* out) {
  const ModelConfig& config = step.model.config;
  const AttentionOp& op = block.attn;
  const int64_t rows = step.rows();
  const Workspace::Frame frame(step.workspace);
  LinearInput input(step, x, rows, config.dim);
  const float* angles = RowAngles(step, step.model.rope(block.ratio));

  float* qr = step.workspace.Floats(rows * config.q_lora);
  input.Apply(op.wq_a, qr);
  NormRows(step, qr, op.q_norm, rows, qr);
  LinearInput latent(step, qr, rows, config.q_lora);
  float* q = step.workspace.Floats(rows * config.heads * config.head_dim);
  latent.Apply(op.wq_b, q);
  FinishQueries(step, angles, q);

  const float* kv = WindowRows(step, block, input, angles);
  RunCompressors(step, block, x);
  std::vector<std::vector<int32_t>> selected;
  if (block.ratio == 4) SelectRows(step, block, latent, input, selected);
  float* heads = step.workspace.Floats(rows * config.heads * config.head_dim);
  AttendSpans(step, block, {kv, selected, angles, q, heads});
  ProjectOutput(step, block, heads, out);
}

void AppendWindow(Step& step, const BlockOp& block, const float* x) {
  const int64_t c = step.model.config.head_dim;
  const Workspace::Frame frame(step.workspace);
  LinearInput input(step, x, step.rows(), step.model.config.dim);
  const float* kv = WindowRows(step, block, input, RowAngles(step, step.model.rope(block.ratio)));
  for (const StepSpan& span : step.spans) {
    WindowRing& ring = span.session->layer(block.index).window;
    for (int64_t i = 0; i < span.count; ++i) ring.Put(span.position + i, kv + (span.begin + i) * c);
  }
  RunCompressors(step, block, x);
}

}  // namespace cairn::engine
