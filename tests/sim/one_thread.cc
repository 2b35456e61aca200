// The C library's waiting, in the hands of Fibers. These definitions stand before the library's own
// in the whole process, so std::mutex, std::condition_variable and std::thread come here, whoever
// uses them. A mutex itself stays the library's: it is taken by trylock, and whoever finds it taken
// waits as a fiber does.
//
// Outside of a fiber there is nobody to wait for: a mutex that is taken there is a mistake of the
// simulation.
#include <pthread.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "tests/sim/fibers.h"

namespace cairn::sim {
namespace {

constexpr int64_t kNanosPerSecond = 1'000'000'000;
// One wait in this many ends for no reason, as the standard allows.
constexpr uint64_t kSpuriousIn = 64;

struct CondWait {
  const void* cond = nullptr;
  bool signalled = false;
};

std::vector<CondWait*>& CondWaits() {
  static std::vector<CondWait*> waits;
  return waits;
}

[[noreturn]] void Misused(const char* what) {
  std::fprintf(stderr, "simulation: %s outside of a fiber\n", what);
  std::abort();
}

int Lock(pthread_mutex_t* mutex) {
  if (Fibers::inside()) Fibers::instance()->MayPreempt();
  while (pthread_mutex_trylock(mutex) != 0) {
    if (!Fibers::inside()) Misused("waiting for a mutex");
    Fibers::instance()->Await("a mutex", [mutex] {
      if (pthread_mutex_trylock(mutex) != 0) return false;
      pthread_mutex_unlock(mutex);
      return true;
    });
  }
  return 0;
}

int Wait(const void* cond, pthread_mutex_t* mutex, int64_t deadline_nanos) {
  if (!Fibers::inside()) Misused("waiting for a condition");
  Fibers& fibers = *Fibers::instance();
  CondWait wait{.cond = cond, .signalled = fibers.random().Next() % kSpuriousIn == 0};
  CondWaits().push_back(&wait);
  pthread_mutex_unlock(mutex);
  const bool in_time = fibers.Await(
      "a signal", [&wait] { return wait.signalled; }, deadline_nanos);
  std::erase(CondWaits(), &wait);
  Lock(mutex);
  return in_time ? 0 : ETIMEDOUT;
}

int64_t Nanos(const timespec& time) { return time.tv_sec * kNanosPerSecond + time.tv_nsec; }

}  // namespace
}  // namespace cairn::sim

using cairn::sim::Fibers;

extern "C" {

int pthread_mutex_lock(pthread_mutex_t* mutex) noexcept { return cairn::sim::Lock(mutex); }

int pthread_cond_wait(pthread_cond_t* cond, pthread_mutex_t* mutex) {
  return cairn::sim::Wait(cond, mutex, Fibers::kNever);
}

int pthread_cond_clockwait(pthread_cond_t* cond, pthread_mutex_t* mutex, clockid_t clock,
                           const timespec* until) {
  if (clock != CLOCK_MONOTONIC) cairn::sim::Misused("waiting by the wall clock");
  return cairn::sim::Wait(cond, mutex, cairn::sim::Nanos(*until));
}

int pthread_cond_signal(pthread_cond_t* cond) noexcept {
  std::vector<cairn::sim::CondWait*> waiting;
  for (cairn::sim::CondWait* wait : cairn::sim::CondWaits()) {
    if (wait->cond == cond && !wait->signalled) waiting.push_back(wait);
  }
  if (waiting.empty()) return 0;
  waiting[Fibers::instance()->random().Next() % waiting.size()]->signalled = true;
  return 0;
}

int pthread_cond_broadcast(pthread_cond_t* cond) noexcept {
  for (cairn::sim::CondWait* wait : cairn::sim::CondWaits()) {
    if (wait->cond == cond) wait->signalled = true;
  }
  return 0;
}

int pthread_create(pthread_t* thread, const pthread_attr_t*, void* (*body)(void*),
                   void* argument) noexcept {
  if (Fibers::instance() == nullptr) cairn::sim::Misused("a thread");
  // Numbers from 1 on: 0 is no thread.
  *thread = 1 + Fibers::instance()->Spawn("a thread", [body, argument] { body(argument); });
  return 0;
}

int pthread_join(pthread_t thread, void**) {
  if (!Fibers::inside()) cairn::sim::Misused("joining");
  Fibers::instance()->Await("a thread's end",
                            [thread] { return Fibers::instance()->ended(thread - 1); });
  return 0;
}

int clock_gettime(clockid_t clock, timespec* time) noexcept {
  if (!Fibers::inside()) return static_cast<int>(::syscall(SYS_clock_gettime, clock, time));
  const cairn::sim::SimClock& now = Fibers::instance()->clock();
  const int64_t nanos = clock == CLOCK_REALTIME ? now.WallMicros() * 1000 : now.NowNanos();
  *time = {.tv_sec = nanos / cairn::sim::kNanosPerSecond,
           .tv_nsec = nanos % cairn::sim::kNanosPerSecond};
  return 0;
}

}  // extern "C"
