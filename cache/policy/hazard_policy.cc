#include "cache/policy/hazard_policy.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace cairn::cache {
namespace {

constexpr size_t kSample = 32;  // entries weighed for a victim
constexpr size_t kHistorySlots = kHistoryBytesMax / sizeof(ReuseHistory::Record);
// So many keys are remembered for each entry that fits, that what returns is known again.
constexpr uint64_t kHistoryPerEntry = 4;

// What the bits of ReuseTraits hold.
constexpr uint32_t kUsesMax = 15, kTurnMax = 7, kGapMax = 31, kRunMax = 255, kDepthMax = 15;
constexpr uint32_t kWorthMax = 63;
constexpr double kWorthStepsPerOctave = 4;
constexpr double kWorthLowestLog2 = -20;  // of tokens per byte: one token per MiB

uint32_t Fingerprint(uint64_t key) {
  // Keys may be dense numbers; the multiplier is the golden ratio's (Knuth).
  return static_cast<uint32_t>((key + 1) * 0x9E3779B97F4A7C15ull >> 32);
}

int SampleShift(uint64_t entries) {
  const uint64_t wanted = std::max<uint64_t>(1, entries * kHistoryPerEntry / kHistorySlots);
  return 32 - std::min(31, static_cast<int>(std::bit_width(wanted)) - 1);
}

uint32_t WorthCode(uint64_t bytes, uint64_t tokens) {
  if (tokens == 0) return 0;
  const double log2 =
      std::log2(static_cast<double>(tokens) / static_cast<double>(std::max<uint64_t>(1, bytes)));
  return static_cast<uint32_t>(std::clamp(
      std::round((log2 - kWorthLowestLog2) * kWorthStepsPerOctave), 1.0, double{kWorthMax}));
}

double WorthOf(uint32_t code) { return code == 0 ? 0 : std::exp2(code / kWorthStepsPerOctave); }

}  // namespace

HazardPolicy::HazardPolicy(const PolicyOptions& options)
    : random_(*options.random),
      model_(std::exp2(32 - SampleShift(options.entries_expected))),
      history_(kHistorySlots, model_),
      sample_shift_(SampleShift(options.entries_expected)) {}

ReuseTraits HazardPolicy::TraitsOfNew(const EntryFacts& facts) const {
  ReuseTraits traits;
  traits.run = 1;
  traits.turn = 1;
  if (facts.parent != kNoHandle) {
    const ReuseTraits& parent = states_[facts.parent].traits;
    // A parent that was never used again is of the same request.
    const bool same_run = parent.uses == 1;
    traits.run = same_run ? std::min<uint32_t>(parent.run + 1u, kRunMax) & kRunMax : 1u;
    traits.turn =
        (same_run ? uint32_t{parent.turn} : std::min<uint32_t>(parent.turn + 1u, kTurnMax)) &
        kTurnMax;
  }
  traits.depth =
      std::min(static_cast<uint32_t>(std::bit_width(facts.depth)), kDepthMax) & kDepthMax;
  traits.checkpoint = facts.kind == EntryKind::kCheckpoint;
  traits.tip = 1;
  return traits;
}

void HazardPolicy::Advance(State& state) {
  ReuseTraits& traits = state.traits;
  ++now_;
  if (traits.uses > 0) {
    const auto octave = static_cast<uint32_t>(std::bit_width(now_ - state.touched));
    traits.gap = std::min(octave, kGapMax) & kGapMax;
  }
  traits.uses = std::min<uint32_t>(traits.uses + 1u, kUsesMax) & kUsesMax;
  state.touched = now_;
}

void HazardPolicy::Touch(State& state) {
  Advance(state);
  if (!Watched(state)) return;
  history_.Touch(state.fingerprint, now_, state.traits);
  history_.Sweep(now_);
}

void HazardPolicy::Inserted(PolicyHandle handle, const EntryFacts& facts) {
  if (handle >= states_.size()) states_.resize(size_t{handle} + 1);
  State& state = states_[handle];
  state = State{};
  state.fingerprint = Fingerprint(facts.key);
  state.traits = TraitsOfNew(facts);
  if (facts.found) {
    state.traits.uses = 1;
    state.traits.worth = WorthCode(facts.bytes, facts.tokens) & kWorthMax;
    state.touched = now_;
    return;
  }
  const ReuseHistory::Record* const known =
      Watched(state) ? history_.Find(state.fingerprint) : nullptr;
  if (known != nullptr) {
    state.traits = known->traits;
    state.touched = known->touched;
  }
  state.traits.worth = WorthCode(facts.bytes, facts.tokens) & kWorthMax;
  if (facts.parent != kNoHandle && facts.kind == EntryKind::kRows) {
    State& parent = states_[facts.parent];
    if (parent.traits.tip) {
      parent.traits.tip = 0;
      ReuseHistory::Record* const record =
          Watched(parent) ? history_.Find(parent.fingerprint) : nullptr;
      if (record != nullptr) record->traits.tip = 0;
    }
  }
  Touch(state);
}

void HazardPolicy::Used(PolicyHandle handle) { Touch(states_[handle]); }

void HazardPolicy::UsedUnlearned(PolicyHandle handle) {
  State& state = states_[handle];
  Advance(state);
  if (Watched(state)) history_.Restart(state.fingerprint, now_, state.traits);
}

void HazardPolicy::SetWorth(PolicyHandle handle, uint64_t bytes, uint64_t tokens) {
  states_[handle].traits.worth = WorthCode(bytes, tokens) & kWorthMax;
}

void HazardPolicy::SetEvictable(PolicyHandle handle, bool evictable) {
  if (!evictable) {
    evictable_.Remove(handle, Positions());
    return;
  }
  evictable_.Add(handle, Positions());
  newest_ = handle;
}

double HazardPolicy::Value(PolicyHandle handle) const {
  const State& state = states_[handle];
  return WorthOf(state.traits.worth) * model_.HitDensity(state.traits, now_ - state.touched);
}

std::optional<PolicyHandle> HazardPolicy::Victim() {
  const size_t count = evictable_.size();
  if (count == 0) return std::nullopt;
  PolicyHandle victim = kNoHandle;
  double least = 0;
  const auto weigh = [&](PolicyHandle handle) {
    const double value = Value(handle);
    if (victim == kNoHandle || value < least) {
      victim = handle;
      least = value;
    }
  };
  if (count <= kSample) {
    for (size_t i = 0; i < count; ++i) weigh(evictable_[i]);
    return victim;
  }
  const bool newest_stands =
      newest_ < states_.size() && states_[newest_].position != EvictableSet::kNowhere;
  if (newest_stands) weigh(newest_);
  uint64_t bits = 0;
  for (size_t i = 0; i < kSample; ++i) {
    bits = i % 2 == 0 ? random_.Next() : bits >> 32;
    weigh(evictable_[(bits & UINT32_MAX) * count >> 32]);
  }
  return victim;
}

void HazardPolicy::Removed(PolicyHandle handle, bool /*evicted*/) {
  evictable_.Remove(handle, Positions());
}

}  // namespace cairn::cache
