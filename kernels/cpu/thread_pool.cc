#include "kernels/cpu/thread_pool.h"

#include <immintrin.h>

#include <algorithm>

namespace cairn::kernels {
namespace {

// About 30 us of pauses; after that the thread sleeps in the kernel.
constexpr int kSpins = 1000;

// The gate: how many workers are inside of the loop, whether more may enter, which loop it is.
constexpr uint32_t kInside = 0x3ff;
constexpr uint32_t kOpen = kInside + 1;
constexpr uint32_t kGeneration = kOpen << 1;

uint32_t GenerationOf(uint32_t gate) { return gate / kGeneration; }

void SpinThenWait(std::atomic<uint32_t>& value, uint32_t old) {
  for (int i = 0; i < kSpins; ++i) {
    if (value.load(std::memory_order_acquire) != old) return;
    _mm_pause();
  }
  value.wait(old, std::memory_order_acquire);
}

}  // namespace

ThreadPool::ThreadPool(int threads) {
  for (int i = 1; i < std::min<int>(threads, kInside); ++i) {
    workers_.emplace_back([this] { Work(); });
  }
}

ThreadPool::~ThreadPool() {
  stop_.store(true);
  gate_.fetch_add(kGeneration, std::memory_order_release);
  gate_.notify_all();
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
  gate_.fetch_add(kGeneration + kOpen, std::memory_order_release);
  gate_.notify_all();
  Drain(body, tasks);
  // A worker that took no task in time, asleep or without a processor, is not waited for: it finds
  // the gate closed. Those inside must have left before the fields may change.
  uint32_t gate = gate_.fetch_sub(kOpen, std::memory_order_acq_rel) - kOpen;
  while ((gate & kInside) != 0) {
    SpinThenWait(gate_, gate);
    gate = gate_.load(std::memory_order_acquire);
  }
}

void ThreadPool::Work() {
  uint32_t seen = 0;  // the generation of the last loop that was left or missed
  for (;;) {
    uint32_t gate = gate_.load(std::memory_order_acquire);
    if (stop_.load()) return;
    if ((gate & kOpen) == 0 || GenerationOf(gate) == seen) {
      SpinThenWait(gate_, gate);
      continue;
    }
    if (!gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acquire)) continue;
    seen = GenerationOf(gate);
    Drain(*body_, tasks_);
    const uint32_t left = gate_.fetch_sub(1, std::memory_order_acq_rel) - 1;
    if ((left & (kOpen | kInside)) == 0) gate_.notify_all();
  }
}

}  // namespace cairn::kernels
