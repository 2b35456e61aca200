// The scheduler's part for tasks: what may wait, on other threads.
#include <algorithm>
#include <utility>

#include "engine/serve/scheduler.h"

namespace cairn::engine {
namespace {

constexpr double kTaskWait = 0.125;  // of the last step's seconds

}  // namespace

void Scheduler::HandOff(Sequence& sequence, std::function<void()> task) {
  sequence.away = true;
  uint64_t round = 0;
  {
    const MutexLock lock(&mutex_);
    ++new_tasks_;
    round = task_round_;
  }
  spawn_([this, &sequence, round, task = std::move(task)] {
    task();
    const MutexLock lock(&mutex_);
    returned_.push_back(&sequence);
    if (round == task_round_) --new_tasks_;
    wake_ = true;
  });
}

// Most tasks take far less than a step. What comes back just after a step has begun misses all of
// it, and so does the request that waits for its place.
void Scheduler::AwaitTasks() {
  const MutexLock lock(&mutex_);
  const auto back = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return new_tasks_ == 0; };
  mutex_.AwaitWithTimeout(
      back, std::min(absl::Seconds(kTaskWait * step_seconds_), options_.task_wait_max));
  new_tasks_ = 0;
  ++task_round_;
}

// What returned from its task goes on where it was.
void Scheduler::TakeBack() {
  std::vector<Sequence*> returned;
  {
    const MutexLock lock(&mutex_);
    returned.swap(returned_);
  }
  for (Sequence* sequence : returned) {
    sequence->away = false;
    kv_bytes_used_ -= sequence->GiveBackShared();
    if (sequence->ended || sequence->logits.empty()) continue;
    const std::vector<float> logits = std::exchange(sequence->logits, {});
    sequence->settled ? Produce(*sequence, logits) : Recompute(*sequence);
  }
}

}  // namespace cairn::engine
