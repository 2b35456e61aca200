// indexer.h: which compressed rows a token attends to in a CSA layer. Spec section 2.6.
//
// Threads: pure function.
#ifndef CAIRN_ENGINE_REFERENCE_INDEXER_H_
#define CAIRN_ENGINE_REFERENCE_INDEXER_H_

#include <vector>

#include "engine/reference/ops.h"

namespace cairn::engine::reference {

// qr [n, q_lora] normalised, x [n, d], positions from 0. For each token its rows, ascending.
std::vector<std::vector<int64_t>> SelectRows(const Setup& setup, const IndexerWeights& w,
                                             const Rows& qr, const Rows& x);

}  // namespace cairn::engine::reference

#endif  // CAIRN_ENGINE_REFERENCE_INDEXER_H_
