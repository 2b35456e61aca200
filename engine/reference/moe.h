// moe.h: the mixture of experts. Spec section 2.7.
//
// Threads: pure function.
#ifndef CAIRN_ENGINE_REFERENCE_MOE_H_
#define CAIRN_ENGINE_REFERENCE_MOE_H_

#include "engine/reference/ops.h"

namespace cairn::engine::reference {

// x [n, d] normalised; tokens: their ids, which route the hash layers. [n, d].
Rows Moe(const Setup& setup, const MoeWeights& w, std::span<const int32_t> tokens, const Rows& x);

}  // namespace cairn::engine::reference

#endif  // CAIRN_ENGINE_REFERENCE_MOE_H_
