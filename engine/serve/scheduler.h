// scheduler.h: continuous batching. Each step of the model takes all running sequences along: those
// that decode with one token each, those that prefill with a share of what is left of the step's
// budget, equal shares, so that a short prompt does not wait for a long one.
//
// A request waits in a bounded queue, first come, first served, until there is a place and memory
// for its prompt and its longest answer; from then on it cannot fail for want of memory, and it
// gets at least one token into every step. What a request is answered does not depend on the others
// (batch_runner.h, sampler.h).
//
// Calls to the cache that may wait (resume, check, finish) are tasks; meanwhile the others go on,
// once they have waited an eighth of a step for them (Options.task_wait_max).
// No token leaves before the rows that it was computed from have been checked (prefix_cache.h).
//
// A prefix of another host may arrive while its first layers are computed (prefix_cache.h). A step
// with such a sequence waits for its bytes, so it is alone in it; when there are others to go on
// with, it waits and they do not.
//
// Speculation (Options.speculate): the MTP block guesses the token after the last one, which the
// step then computes too. The token is sampled from the model's own logits as ever, and what is
// drawn is a function of those and its position (sampler.h). So answers are what they are without,
// greedy or not; a guess that was right has saved a step, one that was wrong is taken back.
//
// Threads:   Submit, Drain, Stop, expert_stats and RetryAfterSeconds from any; Step and Run from
//            one.
// Ownership: everything given to the constructor outlives this.
// Errors:    of Submit: INVALID_ARGUMENT, OUT_OF_RANGE (longer than the engine or the memory
//            takes) naming the field, RESOURCE_EXHAUSTED (the queue is full), UNAVAILABLE (shutting
//            down).
#ifndef CAIRN_ENGINE_SERVE_SCHEDULER_H_
#define CAIRN_ENGINE_SERVE_SCHEDULER_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "engine/serve/metrics.h"
#include "engine/serve/sequence.h"
#include "store/base/clock.h"
#include "store/base/mutex.h"

namespace cairn::engine {

class Scheduler {
 public:
  struct Options {
    int64_t step_tokens = 256;   // at least sequences_max
    int64_t sequences_max = 16;  // at once
    int64_t queue_max = 64;      // beyond these
    int64_t kv_bytes_max = 4ll << 30;
    bool speculate = false;  // REQUIRES: BatchRunner::drafts()
    // That a step waits for tasks, at most: of slow steps an eighth is longer than a daemon at hand
    // ever needs.
    absl::Duration task_wait_max = absl::Milliseconds(50);
  };
  // Runs it on another thread, or later.
  using Spawn = std::function<void(std::function<void()>)>;
  // `cache` null: without.
  Scheduler(BatchRunner& runner, const Tokenizer& tokenizer, CacheSlots* cache, Spawn spawn,
            Clock& clock, Metrics& metrics, const Options& options);
  ~Scheduler();  // REQUIRES: Run has returned, no task is left

  absl::StatusOr<std::shared_ptr<Generation>> Submit(GenerationRequest request);
  ExpertStats expert_stats() const { return runner_.expert_stats(); }
  // A guess at when the queue will have a place, from how long requests took.
  int64_t RetryAfterSeconds() const;

  // One step; false: nothing to compute now.
  bool Step();
  // Steps until Stop, then ends what is left and returns.
  void Run();
  // From now on nothing is taken; returns when all are done, or after `deadline`.
  void Drain(absl::Duration deadline);
  // Run ends soon: what is left fails.
  void Stop();

  // For tests: the logits a token is chosen from, with the prompt and the token's position.
  using LogitsProbe =
      std::function<void(const GenerationRequest&, int64_t, std::span<const float>)>;
  void set_logits_probe(LogitsProbe probe) { probe_ = std::move(probe); }
  // For tests: takes the place of the MTP block's guess at the token at a position.
  using Guesser = std::function<int32_t(const GenerationRequest&, int64_t, int32_t)>;
  void set_guesser(Guesser guesser) { guesser_ = std::move(guesser); }

 private:
  struct Plan {
    std::vector<Sequence*> sequences;
    std::vector<BatchItem> items;  // one a sequence
  };

  absl::Status Check(const GenerationRequest& request) const;
  void DropCancelled();
  void Admit();
  Plan MakePlan();
  // tasks.cc: what may wait, on other threads.
  void HandOff(Sequence& sequence, std::function<void()> task);
  void AwaitTasks();
  void TakeBack();
  // arriving.cc: prefixes that are still on their way.
  void NoteArrivals();
  static void KeepArrivingApart(std::vector<Sequence*>& sequences);
  void GiveUpArrival(Sequence& sequence);
  void Recompute(Sequence& sequence);
  bool MayGuess(const Sequence& sequence) const;
  absl::Status Guess(Plan& plan);
  void Start(Sequence& sequence);
  void Continue(Sequence& sequence, int64_t computed, double seconds, BatchItem& item);
  void ContinueGuessed(Sequence& sequence, const BatchItem& item);
  void Produce(Sequence& sequence, std::span<const float> logits);
  void Push(const Sequence& sequence, Output output);
  void End(Sequence& sequence, Output output);
  void CountEnd(const Sequence& sequence, FinishReason reason);
  void Sweep();
  void EndAll();
  int64_t kv_bytes_used() const {
    return kv_bytes_used_ + (cache_ == nullptr ? 0 : cache_->shared_rows().bytes());
  }
  double SecondsSince(int64_t nanos) const;

  BatchRunner& runner_;
  const Tokenizer& tokenizer_;
  CacheSlots* const cache_;
  const Spawn spawn_;
  Clock& clock_;
  Metrics& metrics_;
  const Options options_;
  LogitsProbe probe_;
  Guesser guesser_;

  // The stepping thread's.
  std::vector<std::unique_ptr<Sequence>> running_;  // admitted, in order
  int64_t kv_bytes_used_ = 0;                       // without the rows that sequences share
  double step_seconds_ = 0;                         // the last one's

  mutable Mutex mutex_;
  std::deque<std::unique_ptr<Sequence>> waiting_ ABSL_GUARDED_BY(mutex_);
  std::vector<Sequence*> returned_ ABSL_GUARDED_BY(mutex_);  // from tasks
  int64_t new_tasks_ ABSL_GUARDED_BY(mutex_) = 0;            // not awaited yet, and not back
  uint64_t task_round_ ABSL_GUARDED_BY(mutex_) = 0;          // counts AwaitTasks
  int64_t unfinished_ ABSL_GUARDED_BY(mutex_) = 0;           // waiting and running
  double request_seconds_ ABSL_GUARDED_BY(mutex_) = 0;       // a running mean
  bool wake_ ABSL_GUARDED_BY(mutex_) = false;  // something came since the last step began
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_SERVE_SCHEDULER_H_
