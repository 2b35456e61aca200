// reuse_model.h: how likely an entry is to be used in the next moment, learned from what happened.
//
// The rate of reuse (reuses per touch of anything) of an entry with traits x at age a is modelled
// as a product of factors, one per trait, and one per bin of age, alone and with two of the traits:
//   rate(x, a) = exp(sum over traits of w[trait][x] + b[a] + c[uses][a] + d[gap][a])
// that is, a log-linear Poisson regression over half-octaves of age. Every factor is learned online
// by Newton steps on its own curvature: w += (reuses - expected reuses) / (prior + sum of
// expected). All start from rate = 1 / age, under which the best victim is the least recently used
// one.
//
// HitDensity is what the policy ranks by: the most hits per touch of further residence that any
// stopping time can get, max over t of P(reused within t) / E(time until reuse or t). Before the
// age at which entries like it come back an entry is worth what waiting will bring; after that age
// it is worth little.
//
// Threads: externally synchronised. Units: touches. Cost: a fixed 25 kB; no allocation.
#ifndef CAIRN_CACHE_POLICY_REUSE_MODEL_H_
#define CAIRN_CACHE_POLICY_REUSE_MODEL_H_

#include <array>
#include <cstddef>
#include <cstdint>

namespace cairn::cache {

// What is known about an entry since its last touch, in 32 bits with its worth.
struct ReuseTraits {
  uint32_t uses : 4 = 0;   // touches so far, saturating
  uint32_t turn : 3 = 0;   // how often its chain had been extended when it was made, saturating
  uint32_t gap : 5 = 0;    // octave of the time between its last two touches; 0: one touch only
  uint32_t run : 8 = 0;    // blocks made in one go up to and with this one, saturating
  uint32_t depth : 4 = 0;  // octave of its block index
  uint32_t tip : 1 = 0;    // nothing was ever built on it
  uint32_t checkpoint : 1 = 0;
  uint32_t worth : 6 = 0;  // tokens saved per byte, in steps of a quarter octave; not learned from
};
static_assert(sizeof(ReuseTraits) == 4);

class ReuseModel {
 public:
  static constexpr int kBins = 64;  // half-octaves of a 32-bit age

  // `weight`: how many entries each of those learned from stands for; at most kWeightMax counts.
  explicit ReuseModel(double weight = 1);
  static constexpr double kWeightMax = 8;
  // The bin of `age`: it covers ages above its lower edge up to Edge(bin).
  static int BinOf(uint32_t age);
  static double Edge(int bin) { return kEdges()[static_cast<size_t>(bin)]; }

  // An entry spent the whole of `bin` without reuse.
  void LearnIdle(const ReuseTraits& traits, int bin);
  // An entry was used again at `age`, within the bin of that age.
  void LearnReuse(const ReuseTraits& traits, uint32_t age);
  double Rate(const ReuseTraits& traits, int bin) const;
  double HitDensity(const ReuseTraits& traits, uint32_t age) const;

 private:
  struct Factor {
    float factor = 1;
    float curvature = 0;  // expected reuses seen so far
  };
  static constexpr size_t kTraits = 6;
  static constexpr size_t kTraitValues = 32;
  static constexpr size_t kUsesApart = 5;  // uses that have age factors of their own

  static const std::array<double, kBins>& kEdges();
  static std::array<size_t, kTraits> ValuesOf(const ReuseTraits& traits);
  static size_t UsesClass(const ReuseTraits& traits);
  void Learn(const ReuseTraits& traits, int bin, double exposure, double reuses);
  double TraitFactor(const ReuseTraits& traits) const;

  const double weight_;
  std::array<std::array<Factor, kTraitValues>, kTraits> trait_;
  std::array<Factor, kBins> age_;
  std::array<std::array<Factor, kBins>, kUsesApart> age_by_uses_;
  std::array<std::array<Factor, kBins>, kTraitValues> age_by_gap_;
};

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_POLICY_REUSE_MODEL_H_
