#include "engine/reference/indexer.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/reference/compressor.h"

namespace cairn::engine::reference {
namespace {

constexpr int64_t kRatio = 4;

// The k best of the scores, the lower index first among equals; ascending by index.
std::vector<int64_t> Best(const std::vector<float>& scores, int64_t k) {
  std::vector<int64_t> rows(scores.size());
  std::iota(rows.begin(), rows.end(), 0);
  std::stable_sort(rows.begin(), rows.end(), [&](int64_t a, int64_t b) {
    return scores[static_cast<size_t>(a)] > scores[static_cast<size_t>(b)];
  });
  rows.resize(std::min(rows.size(), static_cast<size_t>(k)));
  std::sort(rows.begin(), rows.end());
  return rows;
}

}  // namespace

std::vector<std::vector<int64_t>> SelectRows(const Setup& setup, const IndexerWeights& w,
                                             const Rows& qr, const Rows& x) {
  const size_t heads = static_cast<size_t>(setup.config.index_heads);
  const size_t dim = static_cast<size_t>(setup.config.index_dim);
  const Rows keys = Compress(setup, w.compressor, kRatio, true, x);
  Rows q = Linear(setup, w.wq_b, qr);
  const Rows weights = Linear(setup, w.weights_proj, x);
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim * heads));
  std::vector<std::vector<int64_t>> selected;
  for (int64_t p = 0; p < x.count; ++p) {
    for (size_t h = 0; h < heads; ++h) {
      const std::span<float> head = q[p].subspan(h * dim, dim);
      RotateLast(setup, kRatio, p, false, head);
      Hadamard(head);
      RoundIndex(setup, head);
    }
    std::vector<float> scores(static_cast<size_t>((p + 1) / kRatio), 0.0f);
    for (size_t j = 0; j < scores.size(); ++j) {
      for (size_t h = 0; h < heads; ++h) {
        const float product = Dot(q[p].subspan(h * dim, dim), keys[static_cast<int64_t>(j)]);
        scores[j] += weights[p][h] * scale * std::max(product, 0.0f);
      }
    }
    selected.push_back(Best(scores, setup.config.index_topk));
  }
  return selected;
}

}  // namespace cairn::engine::reference
