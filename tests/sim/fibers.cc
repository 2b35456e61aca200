#include "tests/sim/fibers.h"

#include <ucontext.h>

#include <algorithm>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace cairn::sim {
namespace {

constexpr size_t kStackBytes = 512u << 10;

Fibers* the_instance = nullptr;

// One side of a switch of stacks, as AddressSanitizer must be told of it.
struct Side {
  ucontext_t context{};
  const void* stack = nullptr;  // lowest address
  size_t bytes = 0;
  void* fake_stack = nullptr;
};

void Switch(Side& from, Side& to, [[maybe_unused]] bool for_ever = false) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(for_ever ? nullptr : &from.fake_stack, to.stack, to.bytes);
#endif
  ::swapcontext(&from.context, &to.context);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#endif
}

// The scheduler's own stack.
Side& Main() {
  static Side main;
  return main;
}

}  // namespace

class Fiber {
 public:
  Fiber(std::string name, std::function<void()> body)
      : name_(std::move(name)), body_(std::move(body)), stack_(new char[kStackBytes]) {
    ::getcontext(&side_.context);
    side_.context.uc_stack.ss_sp = stack_.get();
    side_.context.uc_stack.ss_size = kStackBytes;
    side_.context.uc_link = nullptr;
    side_.stack = stack_.get();
    side_.bytes = kStackBytes;
    ::makecontext(&side_.context, &Fiber::Begin, 0);
  }

  void Resume() { Switch(Main(), side_); }
  void GiveUp() { Switch(side_, Main()); }
  // Its stack is not needed any more.
  void Bury() {
    stack_.reset();
    body_ = nullptr;
  }

  const std::string& name() const { return name_; }

  bool ended = false;
  const char* waits_for = "its turn";
  std::function<bool()> ready;  // empty: always
  int64_t deadline_nanos = Fibers::kNever;
  bool timed_out = false;

 private:
  static void Begin() {
    Fiber& self = *the_instance->running_;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &Main().stack, &Main().bytes);
#endif
    self.body_();
    self.ended = true;
    Switch(self.side_, Main(), /*for_ever=*/true);
  }

  const std::string name_;
  std::function<void()> body_;
  std::unique_ptr<char[]> stack_;
  Side side_;
};

Fibers::Fibers(Random& random, SimClock& clock) : random_(random), clock_(clock) {
  the_instance = this;
}

Fibers::~Fibers() { the_instance = nullptr; }

Fibers* Fibers::instance() { return the_instance; }
bool Fibers::inside() { return the_instance != nullptr && the_instance->running_ != nullptr; }

size_t Fibers::Spawn(std::string name, std::function<void()> body) {
  fibers_.push_back(std::make_unique<Fiber>(std::move(name), std::move(body)));
  living_.push_back(fibers_.back().get());
  return fibers_.size() - 1;
}

bool Fibers::ended(size_t number) const { return fibers_[number]->ended; }

std::vector<Fiber*> Fibers::Runnable() {
  std::vector<Fiber*> runnable;
  int64_t nearest = kNever;
  for (Fiber* fiber : living_) {
    fiber->timed_out = clock_.NowNanos() >= fiber->deadline_nanos;
    nearest = std::min(nearest, fiber->deadline_nanos);
    if (fiber->timed_out || !fiber->ready || fiber->ready()) runnable.push_back(fiber);
  }
  if (!runnable.empty() || nearest == kNever) return runnable;
  clock_.AdvanceTo(nearest);
  return Runnable();
}

absl::Status Fibers::Run(uint64_t steps_max) {
  while (!living_.empty()) {
    const std::vector<Fiber*> runnable = Runnable();
    if (runnable.empty()) return absl::InternalError("nobody can go on: " + Waiting());
    if (++steps_ > steps_max) return absl::InternalError("no end in sight: " + Waiting());
    Fiber* const next = runnable[random_.Next() % runnable.size()];
    running_ = next;
    next->Resume();
    running_ = nullptr;
    if (!next->ended) continue;
    next->Bury();
    std::erase(living_, next);
  }
  return absl::OkStatus();
}

std::string Fibers::Waiting() const {
  std::string all;
  for (const Fiber* fiber : living_) {
    if (!all.empty()) all += "; ";
    all += fiber->name() + " waits for " + fiber->waits_for;
  }
  return all;
}

void Fibers::Yield() { Await("its turn", nullptr); }

bool Fibers::Await(const char* what, std::function<bool()> ready, int64_t deadline_nanos) {
  Fiber& self = *running_;
  self.waits_for = what;
  self.ready = std::move(ready);
  self.deadline_nanos = deadline_nanos;
  self.GiveUp();
  // What it waited for may have come together with the deadline.
  const bool in_time = !self.timed_out || !self.ready || self.ready();
  self.deadline_nanos = kNever;
  self.ready = nullptr;
  return in_time;
}

void Fibers::Sleep(absl::Duration by) {
  Await(
      "time to pass", [] { return false; }, clock_.NowNanos() + absl::ToInt64Nanoseconds(by));
}

void Fibers::MayPreempt() {
  if (preempt_in_ != 0 && undisturbed_ == 0 && random_.Next() % preempt_in_ == 0) Yield();
}

}  // namespace cairn::sim
