// replay_plan.h: resuming at a block's end from stored rows alone (spec section 2.10, rule D).
//
// The windows at `end` hang on the tokens before it: layer l's rows of the last 128 positions on
// its own input there, that on the layer below for 127 positions more, and so on down. So layer l
// is computed for [From(l), end) only, a trapezoid; compressed rows are not made but read. It gives
// the state at `end` to the byte as a checkpoint holds it, which is one row a window more than the
// next token needs.
//
// Threads: a value. Units: tokens; a token-layer is one token through one layer.
#ifndef CAIRN_ENGINE_STATE_REPLAY_PLAN_H_
#define CAIRN_ENGINE_STATE_REPLAY_PLAN_H_

#include <algorithm>
#include <cstdint>

#include "engine/model/config.h"

namespace cairn::engine {

struct ReplayPlan {
  int64_t end = 0;     // whole blocks, whose rows are there
  int64_t layers = 0;  // main ones
  int64_t reach = 0;   // positions before its own that a token sees through one layer's window
  bool mtp = false;    // its window is made from the last layer's streams

  // REQUIRES: end >= 1.
  static ReplayPlan To(const ModelConfig& config, int64_t end) {
    return {end, config.layers, config.window - 1, config.mtp_layers > 0};
  }

  // The first position whose streams are needed as layer `layer`'s input: its window rows are made
  // from there on. From(layers) is MTP's, which lags one token behind.
  int64_t From(int64_t layer) const {
    const int64_t after = mtp ? reach + 2 : 1;  // positions that a window holds before `end`
    return std::max<int64_t>(end - after - reach * (layers - layer), 0);
  }
  // From where on its attention and experts are needed too.
  int64_t WholeFrom(int64_t layer) const {
    return layer + 1 < layers || mtp ? From(layer + 1) : end;
  }
  // Those of tokens [begin, stop).
  int64_t TokenLayers(int64_t begin, int64_t stop) const {
    int64_t sum = 0;
    for (int64_t layer = 0; layer < layers; ++layer) {
      sum += std::max<int64_t>(stop - std::max(begin, From(layer)), 0);
    }
    return sum;
  }
  int64_t TokenLayers() const { return TokenLayers(0, end); }
  // The bound of the technical report, section 3.6: the last window * layers tokens through all
  // layers.
  int64_t RectangleTokenLayers() const { return std::min(end, (reach + 1) * layers) * layers; }
};

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_STATE_REPLAY_PLAN_H_
