// fibers.h: many actors in one thread. Each has a stack of its own and runs until it waits; then
// another is picked at random of those that could go on. When none could, time passes.
//
// one_thread.cc leads the process's own waiting here: std::mutex, std::condition_variable,
// std::thread and the system's clocks. So the daemon's code runs as it is, its background threads
// included, and every order in which its threads could have taken their locks is a seed's.
//
// Threads: one; Yield, Await and Sleep only inside of a fiber. Units: nanoseconds of the clock.
#ifndef CAIRN_TESTS_SIM_FIBERS_H_
#define CAIRN_TESTS_SIM_FIBERS_H_

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "store/base/random.h"
#include "store/base/status.h"
#include "tests/sim/sim_clock.h"

namespace cairn::sim {

class Fiber;

class Fibers {
 public:
  friend class Undisturbed;
  static constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

  Fibers(Random& random, SimClock& clock);
  ~Fibers();  // REQUIRES: Run returned OK

  // The scheduler of this process, null if there is none; whether a fiber runs now.
  static Fibers* instance();
  static bool inside();

  // Runs `body` from some later step on. Returns its number.
  size_t Spawn(std::string name, std::function<void()> body);
  bool ended(size_t number) const;

  // Until all have ended. INTERNAL names those that wait for ever, or that after `steps_max` are
  // still busy.
  absl::Status Run(uint64_t steps_max);

  // ---- inside of a fiber ----
  void Yield();
  // Until `ready` holds, asked whenever somebody else has run; false when the time came first.
  bool Await(const char* what, std::function<bool()> ready, int64_t deadline_nanos = kNever);
  void Sleep(absl::Duration by);
  // Yields once in `preempt_in` calls, if that is not 0. Called before each lock is taken.
  void MayPreempt();
  void set_preempt_in(uint64_t calls) { preempt_in_ = calls; }

  Random& random() { return random_; }
  SimClock& clock() { return clock_; }
  uint64_t steps() const { return steps_; }

 private:
  friend class Fiber;
  std::vector<Fiber*> Runnable();
  std::string Waiting() const;

  Random& random_;
  SimClock& clock_;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Fiber*> living_;
  Fiber* running_ = nullptr;
  uint64_t preempt_in_ = 0;
  uint64_t undisturbed_ = 0;
  uint64_t steps_ = 0;
};

// While it lives no lock is preempted: what a simulated device does is one event.
class Undisturbed {
 public:
  Undisturbed() { ++Fibers::instance()->undisturbed_; }
  ~Undisturbed() { --Fibers::instance()->undisturbed_; }
  Undisturbed(const Undisturbed&) = delete;
};

}  // namespace cairn::sim

#endif  // CAIRN_TESTS_SIM_FIBERS_H_
