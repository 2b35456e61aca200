#include "engine/reference/mtp.h"

#include "engine/reference/model.h"

namespace cairn::engine::reference {

Rows MtpLogits(const Setup& setup, const Weights& weights, std::span<const int32_t> tokens,
               const Rows& streams) {
  const MtpWeights& w = weights.mtp.front();
  const int64_t hc = setup.config.hc;
  const int64_t n = streams.count - 1;
  Rows embedded = Embed(weights, tokens.subspan(1));
  RmsNormRows(setup, embedded, w.enorm);
  const Rows e = Linear(setup, w.e_proj, embedded);
  // Norm and projection work on each stream for itself.
  Rows each(n * hc, setup.config.dim);
  std::copy_n(streams.values.begin(), each.values.size(), each.values.begin());
  RmsNormRows(setup, each, w.hnorm);
  const Rows h = Linear(setup, w.h_proj, each);
  Rows x(n, streams.width);
  for (int64_t r = 0; r < n; ++r) {
    for (size_t i = 0; i < x[r].size(); ++i) {
      const size_t d = static_cast<size_t>(setup.config.dim);
      const int64_t stream = r * hc + static_cast<int64_t>(i / d);
      x[r][i] = e[r][i % d] + h[stream][i % d];
    }
  }
  RunBlock(setup, w.block, setup.config.ratio(setup.config.layers), tokens.subspan(1), x);
  return Head(setup, weights, w.hc_head, w.norm, x);
}

}  // namespace cairn::engine::reference
