#include "engine/reference/model.h"

#include <algorithm>
#include <utility>

#include "engine/reference/attention.h"
#include "engine/reference/hyper_connection.h"
#include "engine/reference/moe.h"
#include "engine/reference/mtp.h"

namespace cairn::engine::reference {

Rows Embed(const Weights& weights, std::span<const int32_t> tokens) {
  const std::vector<float> table = Values(weights.embed.weight);
  Rows x(static_cast<int64_t>(tokens.size()), weights.config.dim);
  for (int64_t r = 0; r < x.count; ++r) {
    const auto from = table.begin() + tokens[static_cast<size_t>(r)] * x.width;
    std::copy(from, from + x.width, x[r].begin());
  }
  return x;
}

void RunBlock(const Setup& setup, const BlockWeights& w, int64_t ratio,
              std::span<const int32_t> tokens, Rows& streams) {
  HcMixed mixed = HcMix(setup, w.hc_attn, streams);
  RmsNormRows(setup, mixed.x, w.attn_norm);
  HcMerge(setup, Attention(setup, w.attn, ratio, mixed.x), mixed, streams);

  mixed = HcMix(setup, w.hc_ffn, streams);
  RmsNormRows(setup, mixed.x, w.ffn_norm);
  HcMerge(setup, Moe(setup, w.ffn, tokens, mixed.x), mixed, streams);
}

Rows Head(const Setup& setup, const Weights& weights, const HyperConnectionWeights& hc,
          const TensorView& norm, const Rows& streams) {
  Rows x = HcCollapse(setup, hc, streams);
  RmsNormRows(setup, x, norm);
  return Linear(setup, weights.head, x);
}

Output RunModel(const Weights& weights, Numerics numerics, RopeRows rope_rows,
                std::span<const int32_t> tokens) {
  const ModelConfig& config = weights.config;
  const Setup setup{config, numerics, rope_rows};
  const Rows embedded = Embed(weights, tokens);
  Rows streams(embedded.count, config.hc * config.dim);
  for (int64_t r = 0; r < embedded.count; ++r) {
    for (int64_t j = 0; j < config.hc; ++j) {
      std::copy(embedded[r].begin(), embedded[r].end(), streams[r].begin() + j * config.dim);
    }
  }
  Output out{Rows(0, config.vocab), Rows(0, config.vocab), {}};
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    RunBlock(setup, weights.layers[static_cast<size_t>(layer)], config.ratio(layer), tokens,
             streams);
    out.streams.push_back(streams);
  }
  out.logits = Head(setup, weights, weights.hc_head, weights.norm, streams);
  if (!weights.mtp.empty()) out.mtp_logits = MtpLogits(setup, weights, tokens, streams);
  return out;
}

}  // namespace cairn::engine::reference
