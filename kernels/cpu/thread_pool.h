// thread_pool.h: a fixed number of threads that share one loop at a time.
//
// Results never depend on the number of threads: a loop body writes only what belongs to its own
// index, and every sum lies inside of one index.
//
// Threads: one caller at a time. Cost: waking a sleeping thread takes up to 85 us under a
// hypervisor, so workers spin briefly between loops, and callers pass small loops through `Run`
// with one task. A loop never waits for a worker that took none of it, so one without a processor
// costs nothing.
#ifndef CAIRN_KERNELS_CPU_THREAD_POOL_H_
#define CAIRN_KERNELS_CPU_THREAD_POOL_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

namespace cairn::kernels {

class ThreadPool {
 public:
  // threads >= 1, the caller included; at most 1,023 are used.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls body(i) once for each i in [0, tasks); returns when all are done. The body must not throw
  // or call Run.
  void Run(int64_t tasks, const std::function<void(int64_t)>& body);

 private:
  void Work();
  void Drain(const std::function<void(int64_t)>& body, int64_t tasks);

  std::vector<std::thread> workers_;
  // Guards the loop's fields: they are set while nobody is inside, and read by who has entered. One
  // word, so that entering, and closing it to those who have not, exclude each other.
  std::atomic<uint32_t> gate_{0};
  std::atomic<bool> stop_{false};
  const std::function<void(int64_t)>* body_ = nullptr;
  int64_t tasks_ = 0;
  std::atomic<int64_t> next_{0};
};

}  // namespace cairn::kernels

#endif  // CAIRN_KERNELS_CPU_THREAD_POOL_H_
