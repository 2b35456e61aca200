// batch_runner.h: a model on a device and the sequences that run on it at once, as the scheduler
// sees them: who takes how much memory, and steps. On the CPU it is forward/forward.h; on a GPU
// cairn_engine/cuda_batch_runner.h.
//
// A step's result for a sequence does not depend on the others of the step, nor on how its tokens
// were cut into steps.
//
// Threads:   config, tokens_max, SequenceBytes and expert_stats from any; all else from one. A
//            session belongs to one thread at a time: one that is in no step may be restored on
//            another while Run runs.
// Ownership: sessions must be gone before the runner.
// Units:     tokens, bytes.
// Errors:    of Run and Draft: forward.h; on a GPU what the device says. Sessions of a Run that
//            failed are good for nothing any more.
#ifndef CAIRN_ENGINE_SERVE_BATCH_RUNNER_H_
#define CAIRN_ENGINE_SERVE_BATCH_RUNNER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "engine/forward/forward.h"
#include "engine/state/cached_session.h"

namespace cairn::engine {

// What a step computes of one sequence: StepItem (forward.h) without the device.
struct BatchItem {
  CachedSession* session = nullptr;
  std::span<const int32_t> tokens = {};  // follow what the session holds; at least one
  bool guessed = false;                  // the last one is a guess. REQUIRES: drafts()
  WantLogits want = WantLogits::kNone;   // kAll only of one that ends with a guess
  std::vector<float> logits = {};        // out: [0, 1 or tokens.size(), vocab]
  int64_t token_layers = 0;              // out: tokens times main layers computed
};

// The MTP block's guess at the token behind `token`.
struct BatchDraft {
  CachedSession* session = nullptr;
  int32_t token = 0;               // follows what the session holds; not computed yet
  std::vector<float> logits = {};  // out: [vocab]
};

// Goes back to its runner.
using BatchSession = std::unique_ptr<CachedSession, std::function<void(CachedSession*)>>;

class BatchRunner {
 public:
  virtual ~BatchRunner() = default;

  virtual const ModelConfig& config() const = 0;
  // Of one sequence, prompt and answer.
  virtual int64_t tokens_max() const = 0;
  // What a sequence of so many tokens takes, at most.
  virtual int64_t SequenceBytes(int64_t tokens) const = 0;
  virtual ExpertStats expert_stats() const = 0;

  // A fresh one. REQUIRES: fewer are held than may run at once.
  virtual BatchSession NewSession() = 0;
  // One step; it is done when it returns. Sessions are distinct.
  virtual absl::Status Run(std::span<BatchItem> items) = 0;

  // Whether it guesses tokens, which the next two are for.
  virtual bool drafts() const { return false; }
  virtual absl::Status Draft(std::span<BatchDraft> /*drafts*/) {
    return absl::UnimplementedError("this engine guesses no tokens");
  }
  // Undoes the guess that the session's last step ended with.
  virtual void TakeBack(CachedSession& /*session*/) {}
};

// On the CPU. `forward` outlives it.
std::unique_ptr<BatchRunner> CpuBatchRunner(Forward& forward);

// What a sequence of so many tokens takes there at most: whole blocks of rows, windows, overlaps,
// open groups.
int64_t SequenceBytes(const ModelConfig& config, const KvLayout& layout, int64_t tokens);

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_SERVE_BATCH_RUNNER_H_
