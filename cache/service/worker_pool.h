// worker_pool.h: threads for one kind of work, so that a kind that blocks cannot starve another.
// gRPC's own threads only hand work over.
//
// Threads:   TryRun and Run from any thread. Threads are made when work waits and none is idle, up
// to threads_max, and then
//            stay.
// Ownership: the destructor runs what is queued, then joins.
// Errors:    TryRun is false when threads_max are busy and queue_max jobs wait: the caller answers
// RESOURCE_EXHAUSTED.
#ifndef CAIRN_CACHE_SERVICE_WORKER_POOL_H_
#define CAIRN_CACHE_SERVICE_WORKER_POOL_H_

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace cairn::cache {

class WorkerPool {
 public:
  struct Options {
    size_t threads_max = 1;
    size_t queue_max = 0;  // jobs beyond those that a thread can take at once
  };
  explicit WorkerPool(const Options& options) : options_(options) {}
  ~WorkerPool();

  [[nodiscard]] bool TryRun(std::function<void()> job);
  // Never refused: for clean-ups, whose number is bounded by what they clean up.
  void Run(std::function<void()> job);

 private:
  void PushLocked(std::function<void()> job);
  void Loop();

  const Options options_;
  std::mutex mutex_;
  std::condition_variable work_;
  std::deque<std::function<void()>> queue_;
  std::vector<std::thread> threads_;
  size_t idle_ = 0;
  bool stopping_ = false;
};

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_SERVICE_WORKER_POOL_H_
