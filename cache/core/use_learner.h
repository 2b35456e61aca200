// use_learner.h: lets the eviction policies learn from the uses that matches noted, in the
// background and a few at a time: a use costs about a microsecond to learn from and a match may
// note thousands, so neither a match nor whoever waits for the index behind it should pay for it,
// nor the cores that the engines compute on.
//
// Threads:   one of its own.
// Ownership: residency outlives it.
#ifndef CAIRN_CACHE_CORE_USE_LEARNER_H_
#define CAIRN_CACHE_CORE_USE_LEARNER_H_

#include <thread>

#include "cache/core/residency.h"

namespace cairn::cache {

class UseLearner {
 public:
  // Without `background` nothing is learned before a policy is asked (tests, simulation).
  UseLearner(Residency& residency, bool background);
  ~UseLearner();

  // Uses were noted.
  void Noted() ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex);

 private:
  bool Due() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(residency_.mutex);
  void Run() ABSL_LOCKS_EXCLUDED(residency_.mutex);

  Residency& residency_;
  bool stop_ = false;  // guarded by residency_.mutex
  CondVar due_;
  CondVar stopping_;
  std::thread thread_;
};

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_CORE_USE_LEARNER_H_
