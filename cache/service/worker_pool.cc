#include "cache/service/worker_pool.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

namespace cairn::cache {
namespace {

// Weight of the newest job in the mean: about the last 16 count.
constexpr int kMeanOf = 16;
// A refused caller that comes back at once costs more than the work it was refused.
constexpr absl::Duration kComeAgainMin = absl::Milliseconds(5);

}  // namespace

WorkerPool::~WorkerPool() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  work_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

std::optional<absl::Duration> WorkerPool::TryRun(std::function<void()> job,
                                                 absl::Duration wait_max) {
  std::lock_guard<std::mutex> lock(mutex_);
  const size_t takers = idle_ + options_.threads_max - threads_.size();
  if (queue_.size() >= takers) {
    const size_t waiting = queue_.size() - takers;
    const absl::Duration wait = WaitLocked(waiting + 1);
    if (waiting >= options_.queue_max || wait > wait_max) return std::max(wait, kComeAgainMin);
  }
  PushLocked(std::move(job));
  return std::nullopt;
}

absl::Duration WorkerPool::WaitLocked(size_t jobs) const {
  return job_time_ * static_cast<double>(jobs) / static_cast<double>(options_.threads_max);
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
  // Of this thread alone, as Linux has it; refused, it costs precedence and no more.
  [[maybe_unused]] const int niceness = ::nice(options_.niceness);
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    work_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
    if (queue_.empty()) return;
    std::function<void()> job = std::move(queue_.front());
    queue_.pop_front();
    --idle_;
    lock.unlock();
    const int64_t began = options_.clock->NowNanos();
    job();
    job = nullptr;  // what it holds goes before the thread counts as idle
    const absl::Duration took = absl::Nanoseconds(options_.clock->NowNanos() - began);
    lock.lock();
    job_time_ = job_time_ == absl::ZeroDuration() ? took : job_time_ + (took - job_time_) / kMeanOf;
    ++idle_;
  }
}

}  // namespace cairn::cache
