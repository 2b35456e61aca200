// generation.h: one request on its way through the scheduler, and what comes out of it.
//
// The scheduler pushes output, whoever asked takes it; neither waits for the other. A reader that
// also watches a socket polls ready_fd() beside it.
//
// Threads:   Push from the scheduler's thread; Take, Cancel and ready_fd from any.
// Ownership: shared by the reader and the scheduler; either may go first.
// Errors:    Output::status, where the request ended without an answer.
#ifndef CAIRN_ENGINE_SERVE_GENERATION_H_
#define CAIRN_ENGINE_SERVE_GENERATION_H_

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "engine/sample/sampler.h"
#include "store/base/mutex.h"
#include "store/base/status.h"

namespace cairn::engine {

struct GenerationRequest {
  std::vector<int32_t> prompt;
  int64_t max_tokens = 16;
  SamplingParams sampling = {};
  std::vector<std::string> stop = {};     // texts that end the answer and are not part of it
  std::vector<int32_t> stop_tokens = {};  // the same, as tokens
  bool show_special = false;              // special tokens are part of the text
};

enum class FinishReason : uint8_t { kStop, kLength, kFailed };

struct Output {
  std::string text = {};
  std::vector<SampledToken> tokens = {};  // without the stop token, if one ended the answer
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;  // of the prompt, not computed
  int64_t answer_tokens = 0;  // so far, with the stop token
  std::optional<FinishReason> finish = {};
  absl::Status status = {};  // kFailed: why
};

class Generation {
 public:
  Generation();
  ~Generation();
  Generation(const Generation&) = delete;
  Generation& operator=(const Generation&) = delete;

  // Readable while there is output that was not taken.
  int ready_fd() const { return ready_fd_; }
  // All that came since the last call, as one; nullopt: nothing did.
  std::optional<Output> Take();
  // Nobody waits for it any more: it ends within one step, or one slice of a wait for the cache.
  void Cancel() { cancelled_.store(true); }
  const std::atomic<bool>& cancelled() const { return cancelled_; }

  // Adds to what was not taken yet: text and tokens at the end, the rest in its place.
  void Push(Output more);

 private:
  int ready_fd_;
  std::atomic<bool> cancelled_{false};
  Mutex mutex_;
  std::optional<Output> pending_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_SERVE_GENERATION_H_
