// run_sequence.h: one sequence from its prompt to its last token: resume from the cache, prefill
// the rest in chunks, decode. The same on every device.
//
// Threads: one caller a SequenceRunner. Errors: the runner's.
#ifndef CAIRN_ENGINE_CAIRN_ENGINE_RUN_SEQUENCE_H_
#define CAIRN_ENGINE_CAIRN_ENGINE_RUN_SEQUENCE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "engine/forward/forward.h"
#include "engine/resume/prefix_cache.h"
#include "store/base/clock.h"
#include "store/device/gpu_memory.h"

namespace cairn::engine {

struct SequenceOptions {
  int64_t chunk = 256;  // prefill tokens a step
  int64_t new_tokens = 16;
  int32_t stop_token = -1;                                         // ends the output; -1: none
  std::function<void(int64_t done, int64_t total)> progress = {};  // after each prefill step
};

struct SequenceResult {
  std::vector<int32_t> output;
  std::vector<float>
      logits;  // [output.size(), vocab]: those that each output token was chosen from
  ResumeReport resume;
  int64_t recomputed_tokens = 0;   // behind what was restored or replayed
  double first_token_seconds = 0;  // from the call to the first token
  double prefill_seconds = 0;
  double decode_seconds = 0;  // of the tokens after the first
};

struct NextToken {
  int32_t token = 0;  // the most likely; the lower id on a tie
  std::vector<float> logits;
};

// A model on a device, and one sequence there.
class SequenceRunner {
 public:
  virtual ~SequenceRunner() = default;

  virtual const ModelConfig& config() const = 0;
  // May read all weights.
  virtual CachedModel cached_model() const = 0;
  // By which its device reads memory of a daemon's, for RemoteCacheOptions: outlives the cache.
  // Null: it does not.
  virtual store::Gpu* gpu() const { return nullptr; }
  // Takes what a restore needs, which the first one would wait for.
  virtual absl::Status PrepareForCache() { return absl::OkStatus(); }

  // Makes the sequence an empty one. REQUIRED before all that follows.
  virtual void StartOver() = 0;
  virtual CachedSession& session() = 0;
  // Computes `tokens` behind those that the session holds; they are done when it returns. Gives how
  // many tokens' work that was: a replay's is less. `last`: Next is asked for afterwards.
  virtual absl::StatusOr<int64_t> Prefill(std::span<const int32_t> tokens, bool last) = 0;
  // The token that Next gave.
  virtual absl::Status Decode(int32_t token) = 0;
  // What comes behind the last token computed. Once after each.
  virtual absl::StatusOr<NextToken> Next() = 0;
};

// On the CPU. `forward` outlives it.
std::unique_ptr<SequenceRunner> CpuSequenceRunner(Forward& forward);

// OUT_OF_RANGE: prompt and new tokens together are over the model's maximum. INVALID_ARGUMENT:
// empty, or a token outside of the vocabulary.
absl::Status CheckPrompt(const ModelConfig& config, std::span<const int32_t> prompt,
                         int64_t new_tokens);

// Greedy. `cache` may be null, and is else of the runner's model.
absl::StatusOr<SequenceResult> RunSequence(SequenceRunner& runner, PrefixCache* cache, Clock& clock,
                                           std::span<const int32_t> prompt,
                                           const SequenceOptions& options);
absl::StatusOr<SequenceResult> RunSequence(Forward& forward, PrefixCache* cache, Clock& clock,
                                           std::span<const int32_t> prompt,
                                           const SequenceOptions& options);

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_CAIRN_ENGINE_RUN_SEQUENCE_H_
