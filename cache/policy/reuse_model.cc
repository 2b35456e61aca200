#include "cache/policy/reuse_model.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace cairn::cache {
namespace {

// How many expected reuses a factor must have seen before what it saw outweighs the prior: blocks
// are reused by the chain, so tens of reuses may be one event, and this is about ten events.
constexpr double kPriorReuses = 300;
// One surprise moves a factor no further than this many reuses would.
constexpr double kSurpriseMax = 3;

// A step moves a factor's logarithm by at most this.
static_assert(ReuseModel::kWeightMax * kSurpriseMax / kPriorReuses <= 0.1);

// e^x for |x| <= 0.1, to a millionth of it: learning is a step of nine factors, and std::exp was
// most of it.
float SmallExp(float x) { return 1 + x * (1 + x * (0.5f + x * (1.0f / 6))); }

}  // namespace

const std::array<double, ReuseModel::kBins>& ReuseModel::kEdges() {
  static const std::array<double, kBins> edges = [] {
    std::array<double, kBins> made{};
    for (int bin = 0; bin < kBins; ++bin) made[static_cast<size_t>(bin)] = std::exp2(bin / 2.0);
    return made;
  }();
  return edges;
}

ReuseModel::ReuseModel(double weight) : weight_(std::min(weight, kWeightMax)) {
  for (int bin = 0; bin < kBins; ++bin) {
    Factor& factor = age_[static_cast<size_t>(bin)];
    factor.factor = static_cast<float>(1 / (Edge(bin) + 1) / std::exp(1.0));
  }
}

int ReuseModel::BinOf(uint32_t age) {
  if (age <= 1) return 0;
  const int octave = std::bit_width(age) - 1;  // 2^octave <= age
  int bin = 2 * octave;
  while (bin < kBins - 1 && age > Edge(bin)) ++bin;
  return bin;
}

std::array<size_t, ReuseModel::kTraits> ReuseModel::ValuesOf(const ReuseTraits& traits) {
  return {traits.uses,  traits.turn,
          traits.gap,   static_cast<size_t>(std::bit_width(static_cast<unsigned>(traits.run))),
          traits.depth, static_cast<size_t>(traits.tip + 2 * traits.checkpoint)};
}

size_t ReuseModel::UsesClass(const ReuseTraits& traits) {
  return std::min<size_t>(traits.uses, kUsesApart - 1);
}

double ReuseModel::TraitFactor(const ReuseTraits& traits) const {
  const auto values = ValuesOf(traits);
  double product = 1;
  for (size_t i = 0; i < kTraits; ++i) product *= trait_[i][values[i]].factor;
  return product;
}

double ReuseModel::Rate(const ReuseTraits& traits, int bin) const {
  const auto b = static_cast<size_t>(bin);
  return TraitFactor(traits) * age_[b].factor * age_by_uses_[UsesClass(traits)][b].factor *
         age_by_gap_[traits.gap][b].factor;
}

void ReuseModel::Learn(const ReuseTraits& traits, int bin, double exposure, double reuses) {
  const double expected = Rate(traits, bin) * exposure;
  const double surprise = std::clamp(reuses - expected, -kSurpriseMax, kSurpriseMax);
  const auto step = [&](Factor& factor) {
    factor.curvature += static_cast<float>(weight_ * expected);
    factor.factor *= SmallExp(static_cast<float>(weight_ * surprise) /
                              (factor.curvature + static_cast<float>(kPriorReuses)));
  };
  const auto values = ValuesOf(traits);
  for (size_t i = 0; i < kTraits; ++i) step(trait_[i][values[i]]);
  const auto b = static_cast<size_t>(bin);
  step(age_[b]);
  step(age_by_uses_[UsesClass(traits)][b]);
  step(age_by_gap_[traits.gap][b]);
}

void ReuseModel::LearnIdle(const ReuseTraits& traits, int bin) {
  Learn(traits, bin, Edge(bin) - (bin == 0 ? 0 : Edge(bin - 1)), 0);
}

void ReuseModel::LearnReuse(const ReuseTraits& traits, uint32_t age) {
  const int bin = BinOf(age);
  Learn(traits, bin, age - (bin == 0 ? 0 : Edge(bin - 1)), 1);
}

double ReuseModel::HitDensity(const ReuseTraits& traits, uint32_t age) const {
  const double factor = TraitFactor(traits);
  const auto& by_uses = age_by_uses_[UsesClass(traits)];
  const auto& by_gap = age_by_gap_[traits.gap];
  constexpr double kSurvivalMin = 1e-3;  // what lies beyond cannot matter
  double survival = 1, reused = 0, residence = 0, best = 0;
  double from = age;
  for (auto bin = static_cast<size_t>(BinOf(age)); bin < kBins && survival > kSurvivalMin; ++bin) {
    const double to = std::max(kEdges()[bin], from + 1);
    const double rate =
        factor * age_[bin].factor * by_uses[bin].factor * by_gap[bin].factor + 1e-30;
    const double reused_here = -std::expm1(-rate * (to - from));
    reused += survival * reused_here;
    residence += survival * reused_here / rate;
    survival *= 1 - reused_here;
    best = std::max(best, reused / residence);
    from = to;
  }
  return best;
}

}  // namespace cairn::cache
