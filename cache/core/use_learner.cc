#include "cache/core/use_learner.h"

namespace cairn::cache {
namespace {

// Fewer are not worth a wake-up: whoever asks a policy learns from them in a millisecond.
constexpr size_t kLearnFrom = 1024;
// Learned from under one hold of the index's mutex: some 50 us.
constexpr size_t kLearnAtOnce = 64;
// Between two such holds. So learning takes a tenth of a core at most, and a hundred thousand uses
// a second are learned from.
constexpr absl::Duration kRest = absl::Microseconds(500);
// More than this many are not waited for: the policy is told of them, a few at
// once, and learns from others.
constexpr size_t kBacklogMax = 1 << 14;
constexpr size_t kPassAtOnce = 256;

}  // namespace

UseLearner::UseLearner(Residency& residency, bool background) : residency_(residency) {
  if (background) thread_ = std::thread([this] { Run(); });
}

UseLearner::~UseLearner() {
  if (!thread_.joinable()) return;
  {
    MutexLock lock(&residency_.mutex);
    stop_ = true;
    due_.Signal();
    stopping_.Signal();
  }
  thread_.join();
}

bool UseLearner::Due() const { return residency_.index.unlearned_uses() >= kLearnFrom; }

void UseLearner::Noted() {
  if (thread_.joinable() && Due()) due_.Signal();
}

void UseLearner::Run() {
  bool learning = false;
  while (true) {
    MutexLock lock(&residency_.mutex);
    while (!learning && !Due() && !stop_) due_.Wait(&residency_.mutex);
    if (stop_) return;
    if (residency_.index.unlearned_uses() > kBacklogMax) {
      learning = residency_.index.PassUses(kPassAtOnce);
      continue;
    }
    learning = residency_.index.Learn(kLearnAtOnce);
    if (learning) stopping_.WaitWithTimeout(&residency_.mutex, kRest);
  }
}

}  // namespace cairn::cache
