#include "engine/serve/task_pool.h"

#include <utility>

namespace cairn::engine {

TaskPool::TaskPool(int threads) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Work(); });
}

TaskPool::~TaskPool() {
  {
    const MutexLock lock(&mutex_);
    stop_ = true;
  }
  for (std::thread& thread : threads_) thread.join();
}

void TaskPool::Add(std::function<void()> task) {
  const MutexLock lock(&mutex_);
  tasks_.push_back(std::move(task));
}

void TaskPool::Work() {
  for (;;) {
    std::function<void()> task;
    {
      const MutexLock lock(&mutex_);
      const auto ready = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
        return stop_ || !tasks_.empty();
      };
      mutex_.Await(ready);
      if (tasks_.empty()) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    task();
  }
}

}  // namespace cairn::engine
