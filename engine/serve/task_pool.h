// task_pool.h: threads for what may wait: the scheduler hands off calls to the cache, which can
// take as long as another engine's prefill.
//
// Threads: Add from any. The destructor runs what was added, then joins. Errors: none.
#ifndef CAIRN_ENGINE_SERVE_TASK_POOL_H_
#define CAIRN_ENGINE_SERVE_TASK_POOL_H_

#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "store/base/mutex.h"

namespace cairn::engine {

class TaskPool {
 public:
  explicit TaskPool(int threads);
  ~TaskPool();

  void Add(std::function<void()> task);

 private:
  void Work();

  Mutex mutex_;
  std::deque<std::function<void()>> tasks_ ABSL_GUARDED_BY(mutex_);
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_SERVE_TASK_POOL_H_
