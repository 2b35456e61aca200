// forward.h: tokens to logits. Start reading here: forward.cc -> block.cc -> hyper_connection,
// attention (compressor, indexer), moe -> the head.
//
// Invariance: the result for a token is the same bits whatever the chunking of its prompt, the
// other sequences in the step, the number of threads, or the point from which the session was
// resumed (kernels/README.md).
//
// Threads:   one Run or Draft at a time; a Forward owns its pool and its scratch memory.
// Errors:    INVALID_ARGUMENT for a token outside of the vocabulary (naming its place), a position
//            beyond the model's maximum, or logits of replayed tokens; nothing has changed then.
//            DATA_LOSS or UNAVAILABLE: an expert could not be read. Then sessions of a Run are good
//            for nothing any more; those of a Draft are as they were. The same, or what else ended
//            it: a session's prefix, restored while it arrives, did not (arrival_failed()).
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
  // Follow what the session holds; at least one. Those that a session replays have no logits and
  // no MTP rows.
  std::span<const int32_t> tokens;
  // The last token is a guess: until the session's next step, session->TakeBack() undoes it.
  // REQUIRES: it is not the first of a block, nor of the step.
  bool guessed = false;
  WantLogits want = WantLogits::kNone;
  std::vector<float> logits;  // out: [0, 1 or tokens.size(), vocab]
  int64_t token_layers = 0;   // out: tokens times main layers computed; a replay needs fewer
  // With an MTP block: called with (position i, logits [vocab]) for each position i >= mtp_from
  // whose following token is known by the end of this step, ascending: the MTP block's guess at
  // token i + 2.
  int64_t mtp_from = INT64_MAX;
  std::function<void(int64_t, std::span<const float>)> on_mtp;
};

// The MTP block's guess at the token after next.
struct DraftItem {
  SessionState* session = nullptr;  // not at position 0, and nothing of it still arrives
  int32_t token = 0;                // follows what the session holds; not computed yet
  std::vector<float> logits;        // out: [vocab], of the token after that one
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
  // One step of the MTP block; the sessions stay where they are. REQUIRES: the model has one, and
  // the tokens are in the vocabulary.
  absl::Status Draft(std::span<DraftItem> items);

  // Residual streams [hc, dim] of the last row of each main layer are given to it, for tests:
  // (layer, rows, streams).
  void set_layer_probe(std::function<void(int64_t, int64_t, const float*)> probe) {
    probe_ = std::move(probe);
  }

 private:
  // Tokens of one item.
  struct Part {
    StepItem* item;
    std::span<const int32_t> tokens;
    int64_t mtp_from = INT64_MAX;
  };

  absl::Status Check(std::span<const StepItem> items) const;
  // replay.cc: `part` goes no further than its session's replay.
  absl::Status Replay(const Part& part);
  absl::Status RunParts(std::span<const Part> parts);
  void RunHeads(struct Step& step, std::span<const Part> parts, const float* streams);
  // streams: [the spans' rows, hc, dim].
  absl::Status RunMtp(std::span<const Part> parts, std::span<const struct StepSpan> spans,
                      const float* streams);

  const Model& model_;
  kernels::ThreadPool pool_;
  Workspace workspace_;
  std::function<void(int64_t, int64_t, const float*)> probe_;
};

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_FORWARD_FORWARD_H_
