#include "engine/reference/compressor.h"

#include <algorithm>
#include <cmath>

namespace cairn::engine::reference {
namespace {

// One token's part in a row: where its channels begin in kv and score.
struct Candidate {
  int64_t token;
  size_t channel;
};

// The tokens of group j, each with its own channels; with ratio 4 those of the group before come
// first, read from the first half of their width (none before the first group).
std::vector<Candidate> CandidatesOf(int64_t j, int64_t ratio, size_t dim) {
  std::vector<Candidate> out;
  if (ratio == 4 && j > 0) {
    for (int64_t t = (j - 1) * ratio; t < j * ratio; ++t) out.push_back({t, 0});
  }
  for (int64_t t = j * ratio; t < (j + 1) * ratio; ++t) out.push_back({t, ratio == 4 ? dim : 0});
  return out;
}

// Softmax over the candidates, channel by channel.
float Pool(const std::vector<Candidate>& candidates, const Rows& kv, const Rows& score, size_t e) {
  float top = -HUGE_VALF;
  for (const Candidate& c : candidates) top = std::max(top, score[c.token][c.channel + e]);
  float sum = 0.0f;
  float weights = 0.0f;
  for (const Candidate& c : candidates) {
    const float w = std::exp(score[c.token][c.channel + e] - top);
    weights += w;
    sum += w * kv[c.token][c.channel + e];
  }
  return sum / weights;
}

}  // namespace

Rows Compress(const Setup& setup, const CompressorWeights& w, int64_t ratio, bool indexer,
              const Rows& x) {
  const Rows kv = Linear(setup, w.wkv, x);
  Rows score = Linear(setup, w.wgate, x);
  const std::vector<float> ape = Values(w.ape);
  const size_t width = static_cast<size_t>(kv.width);
  for (int64_t t = 0; t < x.count; ++t) {
    const size_t from = static_cast<size_t>(t % ratio) * width;
    for (size_t e = 0; e < width; ++e) score[t][e] += ape[from + e];
  }
  const std::vector<float> norm = Values(w.norm);
  Rows rows(x.count / ratio, static_cast<int64_t>(norm.size()));
  for (int64_t j = 0; j < rows.count; ++j) {
    const std::vector<Candidate> candidates = CandidatesOf(j, ratio, norm.size());
    for (size_t e = 0; e < norm.size(); ++e) rows[j][e] = Pool(candidates, kv, score, e);
    RmsNorm(setup, rows[j], norm);
    RotateLast(setup, ratio, j * ratio, false, rows[j]);
    if (indexer) {
      Hadamard(rows[j]);
      RoundIndex(setup, rows[j]);
    } else {
      RoundRow(setup, rows[j]);
    }
  }
  return rows;
}

}  // namespace cairn::engine::reference
