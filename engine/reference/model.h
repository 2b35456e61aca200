// model.h: the whole model, slow and obvious: a whole sequence from tokens to logits of every
// position, without state, cache, chunks, threads or vector instructions. Spec section 2.
//
// This is what forward/ is tested against; nothing else uses it. Start here, then follow RunBlock.
//
// Threads: pure functions. Errors: none; tokens are inside of the vocabulary.
#ifndef CAIRN_ENGINE_REFERENCE_MODEL_H_
#define CAIRN_ENGINE_REFERENCE_MODEL_H_

#include <vector>

#include "engine/reference/ops.h"

namespace cairn::engine::reference {

struct Output {
  Rows logits;                // [n, vocab]
  Rows mtp_logits;            // [n - 1, vocab]; empty without an MTP block
  std::vector<Rows> streams;  // after each main layer, [n, hc*d]
};

Output RunModel(const Weights& weights, Numerics numerics, RopeRows rope_rows,
                std::span<const int32_t> tokens);

// Its parts, for mtp.cc and for tests.
Rows Embed(const Weights& weights, std::span<const int32_t> tokens);  // [n, d]
void RunBlock(const Setup& setup, const BlockWeights& w, int64_t ratio,
              std::span<const int32_t> tokens, Rows& streams);
Rows Head(const Setup& setup, const Weights& weights, const HyperConnectionWeights& hc,
          const TensorView& norm, const Rows& streams);

}  // namespace cairn::engine::reference

#endif  // CAIRN_ENGINE_REFERENCE_MODEL_H_
