// worker_pool.h: threads for one kind of work, so that a kind that blocks cannot starve another.
// gRPC's own threads only hand work over.
//
// Threads:   TryRun and Run from any thread. Threads are made when work waits and none is idle, up
// to threads_max, and then
//            stay.
// Ownership: the destructor runs what is queued, then joins.
// Errors:    a job that would wait too long is refused when it comes, not when its caller has lost
// patience: a queue that is longer than its callers wait does work for nobody.
#ifndef CAIRN_CACHE_SERVICE_WORKER_POOL_H_
#define CAIRN_CACHE_SERVICE_WORKER_POOL_H_

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "absl/time/time.h"
#include "store/base/clock.h"

namespace cairn::cache {

class WorkerPool {
 public:
  struct Options {
    size_t threads_max = 1;
    size_t queue_max = 0;  // jobs beyond those that a thread can take at once
    int niceness = 0;      // of its threads; larger gives way to others
    Clock* clock = &RealClock();
  };
  explicit WorkerPool(const Options& options) : options_(options) {}
  ~WorkerPool();

  // Nothing: taken. Else refused, because queue_max jobs wait or because this one would wait longer
  // than `wait_max`, judged by how long jobs have taken lately; the value is when to come again.
  [[nodiscard]] std::optional<absl::Duration> TryRun(
      std::function<void()> job, absl::Duration wait_max = absl::InfiniteDuration());
  // Never refused: for clean-ups, whose number is bounded by what they clean up.
  void Run(std::function<void()> job);

 private:
  void PushLocked(std::function<void()> job);
  // Until `jobs` have been begun, with all threads busy.
  absl::Duration WaitLocked(size_t jobs) const;
  void Loop();

  const Options options_;
  std::mutex mutex_;
  std::condition_variable work_;
  std::deque<std::function<void()>> queue_;
  std::vector<std::thread> threads_;
  size_t idle_ = 0;
  absl::Duration job_time_;  // mean of the last ones, the newest weighed most
  bool stopping_ = false;
};

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_SERVICE_WORKER_POOL_H_
