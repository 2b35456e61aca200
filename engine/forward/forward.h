// forward.h: tokens to logits. Start reading here: forward.cc -> block.cc -> hyper_connection,
// attention (compressor, indexer), moe -> the head.
//
// Invariance: the result for a token is the same bits whatever the chunking of its prompt, the
// other sequences in the step, the number of threads, or the point from which the session was
// resumed (kernels/README.md).
//
// Threads:   one Run at a time; a Forward owns its pool and its scratch memory.
// Errors:    INVALID_ARGUMENT for a token outside of the vocabulary (naming its place) or a
// position beyond the model's
//            maximum; nothing has changed then.
#ifndef CAIRN_ENGINE_FORWARD_FORWARD_H_
#define CAIRN_ENGINE_FORWARD_FORWARD_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "engine/forward/model.h"
#include "engine/forward/workspace.h"
#include "engine/state/session_state.h"
#include "kernels/cpu/thread_pool.h"
#include "store/base/status.h"

namespace cairn::engine {

enum class WantLogits : uint8_t { kNone, kLast, kAll };

struct StepItem {
  SessionState* session = nullptr;
  std::span<const int32_t> tokens;  // follow what the session holds; at least one
  WantLogits want = WantLogits::kNone;
  std::vector<float> logits;  // out: [0, 1 or tokens.size(), vocab]
  // With an MTP block: called with (position i, logits [vocab]) for each position i >= mtp_from
  // whose following token is known by the end of this step, ascending: the MTP block's guess at
  // token i + 2.
  int64_t mtp_from = INT64_MAX;
  std::function<void(int64_t, std::span<const float>)> on_mtp;
};

class Forward {
 public:
  // `model` outlives this.
  Forward(const Model& model, int threads);

  const Model& model() const { return model_; }
  int threads() const { return pool_.threads(); }
  // The most scratch memory (activations, and rows decoded for reading) a step took so far.
  int64_t scratch_floats_max() const { return workspace_.peak_floats(); }

  // Processes all items' tokens in one step; sessions are distinct.
  absl::Status Run(std::span<StepItem> items);

  // Residual streams [hc, dim] of the last row of each main layer are given to it, for tests:
  // (layer, rows, streams).
  void set_layer_probe(std::function<void(int64_t, int64_t, const float*)> probe) {
    probe_ = std::move(probe);
  }

 private:
  absl::Status Check(std::span<const StepItem> items) const;
  void RunMtp(std::span<StepItem> items, const struct Step& main, const float* streams);

  const Model& model_;
  kernels::ThreadPool pool_;
  Workspace workspace_;
  std::function<void(int64_t, int64_t, const float*)> probe_;
};

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_FORWARD_FORWARD_H_
