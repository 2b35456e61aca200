#include "engine/reference/attention.h"

#include <algorithm>
#include <cmath>

#include "engine/reference/compressor.h"
#include "engine/reference/indexer.h"

namespace cairn::engine::reference {
namespace {

using RowList = std::vector<std::span<const float>>;

// Step 5: one head of one token.
void Attend(std::span<const float> q, const RowList& rows, float sink, std::span<float> out) {
  const float scale = 1.0f / std::sqrt(static_cast<float>(q.size()));
  std::vector<float> z;
  for (const std::span<const float> row : rows) z.push_back(Dot(q, row) * scale);
  const float top = *std::max_element(z.begin(), z.end());
  float denominator = std::exp(sink - top);
  for (size_t j = 0; j < rows.size(); ++j) {
    const float weight = std::exp(z[j] - top);
    denominator += weight;
    for (size_t e = 0; e < out.size(); ++e) out[e] += weight * rows[j][e];
  }
  for (float& v : out) v /= denominator;
}

// Steps 3 and 4: the window, then the compressed rows that the token may see.
RowList VisibleRows(const Setup& setup, int64_t ratio, int64_t p, const Rows& window,
                    const Rows& compressed, const std::vector<std::vector<int64_t>>& selected) {
  RowList rows;
  for (int64_t t = std::max<int64_t>(0, p - setup.config.window + 1); t <= p; ++t) {
    rows.push_back(window[t]);
  }
  if (ratio == 4) {
    for (const int64_t j : selected[static_cast<size_t>(p)]) rows.push_back(compressed[j]);
  } else if (ratio == 128) {
    for (int64_t j = 0; j < (p + 1) / ratio; ++j) rows.push_back(compressed[j]);
  }
  return rows;
}

// Step 7.
Rows ProjectOutput(const Setup& setup, const AttentionWeights& w, const Rows& heads) {
  const ModelConfig& config = setup.config;
  const int64_t part = heads.width / config.o_groups;
  Rows latent(heads.count, config.o_groups * config.o_lora);
  for (int64_t g = 0; g < config.o_groups; ++g) {
    Rows group(heads.count, part);
    for (int64_t r = 0; r < heads.count; ++r) {
      const auto from = heads[r].subspan(static_cast<size_t>(g * part), static_cast<size_t>(part));
      std::copy(from.begin(), from.end(), group[r].begin());
    }
    const Rows u = LinearSlice(w.wo_a, g * config.o_lora, config.o_lora, Bf16Input(setup, group));
    for (int64_t r = 0; r < heads.count; ++r) {
      std::copy(u[r].begin(), u[r].end(), latent[r].begin() + g * config.o_lora);
    }
  }
  return Linear(setup, w.wo_b, latent);
}

}  // namespace

Rows WindowRows(const Setup& setup, const AttentionWeights& w, int64_t ratio, const Rows& x) {
  Rows kv = Linear(setup, w.wkv, x);
  RmsNormRows(setup, kv, w.kv_norm);
  for (int64_t p = 0; p < kv.count; ++p) {
    RotateLast(setup, ratio, p, false, kv[p]);
    RoundRow(setup, kv[p]);
  }
  return kv;
}

Rows Attention(const Setup& setup, const AttentionWeights& w, int64_t ratio, const Rows& x) {
  const size_t c = static_cast<size_t>(setup.config.head_dim);
  const size_t heads = static_cast<size_t>(setup.config.heads);
  Rows qr = Linear(setup, w.wq_a, x);
  RmsNormRows(setup, qr, w.q_norm);
  Rows q = Linear(setup, w.wq_b, qr);
  const Rows window = WindowRows(setup, w, ratio, x);
  Rows compressed(0, setup.config.head_dim);
  if (ratio > 0) compressed = Compress(setup, w.compressor, ratio, false, x);
  std::vector<std::vector<int64_t>> selected;
  if (ratio == 4) selected = SelectRows(setup, w.indexer, qr, x);

  const std::vector<float> sink = Values(w.sink);
  Rows out(x.count, q.width);
  for (int64_t p = 0; p < x.count; ++p) {
    const RowList rows = VisibleRows(setup, ratio, p, window, compressed, selected);
    for (size_t h = 0; h < heads; ++h) {
      const std::span<float> head = q[p].subspan(h * c, c);
      RmsNorm(setup, head, {});
      RotateLast(setup, ratio, p, false, head);
      const std::span<float> result = out[p].subspan(h * c, c);
      Attend(head, rows, sink[h], result);
      RotateLast(setup, ratio, p, true, result);
    }
  }
  return ProjectOutput(setup, w, out);
}

}  // namespace cairn::engine::reference
