// batch_parts.h: a step cut up for a device that computes together only sequences which have one
// token each: those that decode, in one recorded step (cuda/cuda_forward.h).
//
// Threads: pure. Ownership: parts refer to the items.
#ifndef CAIRN_ENGINE_SERVE_BATCH_PARTS_H_
#define CAIRN_ENGINE_SERVE_BATCH_PARTS_H_

#include <span>
#include <vector>

#include "engine/serve/batch_runner.h"

namespace cairn::engine {

struct BatchPart {
  // Items whose logits are wanted come first.
  std::vector<BatchItem*> items = {};
  size_t wanting = 0;
};

// First all items of one token, if there are any, then each of the others alone, in their order.
std::vector<BatchPart> PartsOf(std::span<BatchItem> items);

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_SERVE_BATCH_PARTS_H_
