#include "kernels/cpu/thread_pool.h"

#include <immintrin.h>

namespace cairn::kernels {
namespace {

// About 30 us of pauses; after that the thread sleeps in the kernel.
constexpr int kSpins = 1000;

template <typename T>
void SpinThenWait(std::atomic<T>& value, T old) {
  for (int i = 0; i < kSpins; ++i) {
    if (value.load(std::memory_order_acquire) != old) return;
    _mm_pause();
  }
  value.wait(old, std::memory_order_acquire);
}

}  // namespace

ThreadPool::ThreadPool(int threads) {
  for (int i = 1; i < threads; ++i) workers_.emplace_back([this] { Work(); });
}

ThreadPool::~ThreadPool() {
  stop_.store(true);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::Drain(const std::function<void(int64_t)>& body, int64_t tasks) {
  for (;;) {
    const int64_t i = next_.fetch_add(1, std::memory_order_relaxed);
    if (i >= tasks) return;
    body(i);
  }
}

void ThreadPool::Run(int64_t tasks, const std::function<void(int64_t)>& body) {
  if (workers_.empty() || tasks <= 1) {
    for (int64_t i = 0; i < tasks; ++i) body(i);
    return;
  }
  body_ = &body;
  tasks_ = tasks;
  next_.store(0, std::memory_order_relaxed);
  busy_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  Drain(body, tasks);
  // Every worker must have left the loop before its fields may change.
  for (int left = busy_.load(std::memory_order_acquire); left != 0;
       left = busy_.load(std::memory_order_acquire)) {
    SpinThenWait(busy_, left);
  }
}

void ThreadPool::Work() {
  uint64_t seen = 0;
  for (;;) {
    SpinThenWait(generation_, seen);
    const uint64_t now = generation_.load(std::memory_order_acquire);
    if (now == seen) continue;
    seen = now;
    if (stop_.load()) return;
    Drain(*body_, tasks_);
    if (busy_.fetch_sub(1, std::memory_order_acq_rel) == 1) busy_.notify_all();
  }
}

}  // namespace cairn::kernels
