#include "cache/service/worker_pool.h"

#include <utility>

namespace cairn::cache {

WorkerPool::~WorkerPool() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  work_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

bool WorkerPool::TryRun(std::function<void()> job) {
  std::lock_guard<std::mutex> lock(mutex_);
  const size_t takers = idle_ + options_.threads_max - threads_.size();
  if (queue_.size() >= takers + options_.queue_max) return false;
  PushLocked(std::move(job));
  return true;
}

void WorkerPool::Run(std::function<void()> job) {
  std::lock_guard<std::mutex> lock(mutex_);
  PushLocked(std::move(job));
}

void WorkerPool::PushLocked(std::function<void()> job) {
  queue_.push_back(std::move(job));
  if (queue_.size() > idle_ && threads_.size() < options_.threads_max) {
    threads_.emplace_back([this] { Loop(); });
    ++idle_;  // it comes for work at once
  } else {
    work_.notify_one();
  }
}

void WorkerPool::Loop() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    work_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
    if (queue_.empty()) return;
    std::function<void()> job = std::move(queue_.front());
    queue_.pop_front();
    --idle_;
    lock.unlock();
    job();
    job = nullptr;  // what it holds goes before the thread counts as idle
    lock.lock();
    ++idle_;
  }
}

}  // namespace cairn::cache
