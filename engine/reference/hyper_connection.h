// hyper_connection.h: residual streams, mixed before and merged after a sub-layer. Spec
// section 2.2, and the head's collapse of section 2.1.
//
// Threads: pure functions. Shapes: streams [n, hc*d], stream-major.
#ifndef CAIRN_ENGINE_REFERENCE_HYPER_CONNECTION_H_
#define CAIRN_ENGINE_REFERENCE_HYPER_CONNECTION_H_

#include "engine/reference/ops.h"

namespace cairn::engine::reference {

struct HcMixed {
  Rows x;     // [n, d]: the sub-layer's input, before its norm
  Rows post;  // [n, hc]
  Rows comb;  // [n, hc*hc]: C[j][k]
};

HcMixed HcMix(const Setup& setup, const HyperConnectionWeights& w, const Rows& streams);
// streams[k] = post[k] * f + sum_j C[j][k] * streams[j].
void HcMerge(const Setup& setup, const Rows& f, const HcMixed& mixed, Rows& streams);
Rows HcCollapse(const Setup& setup, const HyperConnectionWeights& w, const Rows& streams);

}  // namespace cairn::engine::reference

#endif  // CAIRN_ENGINE_REFERENCE_HYPER_CONNECTION_H_
