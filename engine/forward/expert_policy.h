// expert_policy.h: which expert in memory is needed again last.
//
// Every step runs every layer once, in order, and a layer's step takes some of its experts. So an
// expert's next use is, in layers from here: those up to its own layer, and as many whole rounds as
// its layer's steps are expected to do without it. How likely they take it is a running mean over
// its layer's steps, kept for experts that are not in memory too.
//
// Two patterns decide. Decoding takes few of a layer's experts, some far more often than others:
// the likely ones stay. Prefilling takes nearly all, so every round goes over more than fits: then
// all are as likely, and the layer that was just passed, which is needed last, gives way, where
// giving up the least recently used would find nothing ever. A long prompt lifts all means alike
// and drives out none.
//
// Threads: externally synchronised.
#ifndef CAIRN_ENGINE_FORWARD_EXPERT_POLICY_H_
#define CAIRN_ENGINE_FORWARD_EXPERT_POLICY_H_

#include <cstdint>
#include <span>
#include <vector>

namespace cairn::engine {

class ExpertPolicy {
 public:
  ExpertPolicy(int64_t layers, int64_t experts)
      : layers_(layers), experts_(experts), likely_(static_cast<size_t>(layers * experts), 1.0f) {}

  // A step of `layer` begins that takes `wanted`.
  void Step(int64_t layer, std::span<const int32_t> wanted);
  // Layers that are expected to be run before `expert` of `layer` is needed, from the last Step on,
  // whose own need is over.
  float Wait(int64_t layer, int64_t expert) const {
    const int64_t ahead = (layer - now_ + layers_ - 1) % layers_ + 1;
    const float likely = likely_[static_cast<size_t>(layer * experts_ + expert)];
    return static_cast<float>(ahead) + static_cast<float>(layers_) * (1.0f / likely - 1.0f);
  }

 private:
  static constexpr float kWeight = 1.0f / 32;  // of a step in the mean

  const int64_t layers_;
  const int64_t experts_;
  int64_t now_ = 0;
  std::vector<float> likely_;
};

inline void ExpertPolicy::Step(int64_t layer, std::span<const int32_t> wanted) {
  now_ = layer;
  float* likely = likely_.data() + layer * experts_;
  for (int64_t e = 0; e < experts_; ++e) likely[e] *= 1.0f - kWeight;
  for (const int32_t e : wanted) likely[e] += kWeight;
}

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_FORWARD_EXPERT_POLICY_H_
