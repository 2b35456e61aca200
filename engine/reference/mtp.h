// mtp.h: the multi-token-prediction block. Spec section 2.9.
//
// Threads: pure function.
#ifndef CAIRN_ENGINE_REFERENCE_MTP_H_
#define CAIRN_ENGINE_REFERENCE_MTP_H_

#include "engine/reference/ops.h"

namespace cairn::engine::reference {

// streams [n, hc*d] after the last main layer. Row i pairs position i with token i + 1, so there
// are n - 1 rows of logits.
Rows MtpLogits(const Setup& setup, const Weights& weights, std::span<const int32_t> tokens,
               const Rows& streams);

}  // namespace cairn::engine::reference

#endif  // CAIRN_ENGINE_REFERENCE_MTP_H_
