// compressor.h: the rows that CSA, HCA and the indexer keep of whole groups of tokens. Spec
// section 2.5.
//
// Threads: pure function.
#ifndef CAIRN_ENGINE_REFERENCE_COMPRESSOR_H_
#define CAIRN_ENGINE_REFERENCE_COMPRESSOR_H_

#include "engine/reference/ops.h"

namespace cairn::engine::reference {

// x [n, d], positions from 0. Returns [n / ratio, D] as stored: normalised, rotated, for the
// indexer transformed, rounded as the numerics say.
Rows Compress(const Setup& setup, const CompressorWeights& w, int64_t ratio, bool indexer,
              const Rows& x);

}  // namespace cairn::engine::reference

#endif  // CAIRN_ENGINE_REFERENCE_COMPRESSOR_H_
