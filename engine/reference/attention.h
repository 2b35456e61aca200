// attention.h: low-rank queries against the window and the compressed rows in one softmax with a
// sink, and the grouped output projection. Spec section 2.4.
//
// Threads: pure functions.
#ifndef CAIRN_ENGINE_REFERENCE_ATTENTION_H_
#define CAIRN_ENGINE_REFERENCE_ATTENTION_H_

#include "engine/reference/ops.h"

namespace cairn::engine::reference {

// x [n, d] normalised, positions from 0; [n, d].
Rows Attention(const Setup& setup, const AttentionWeights& w, int64_t ratio, const Rows& x);
// Step 2: the row of every token as the window keeps it, [n, c].
Rows WindowRows(const Setup& setup, const AttentionWeights& w, int64_t ratio, const Rows& x);

}  // namespace cairn::engine::reference

#endif  // CAIRN_ENGINE_REFERENCE_ATTENTION_H_
