// departure.h: what of a disk segment's entries is worth moving, what goes with the rest, and what
// that costs. Decides; changes nothing.
//
// An entry is worth, per byte, what its policy says (EvictionPolicy::Value), or more if something
// worth more stands on it: it can go only with all that does, wherever that lies (the law of
// eviction, prefix_index.h). The least worth go, as many as make what is lost for each byte given
// back least, and enough that what stays may be moved. What is held, what holds something held,
// and what has too much below it to be looked through, stays.
//
// Threads: externally synchronised, as PrefixIndex. Units: bytes; value of bytes is tokens saved a
// touch. Cost: bounded by the segment's entries and kBelowMax blocks beside them.
#ifndef CAIRN_CACHE_CORE_DEPARTURE_H_
#define CAIRN_CACHE_CORE_DEPARTURE_H_

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "cache/core/prefix_index.h"
#include "store/tier/disk_tier.h"

namespace cairn::cache {

struct Departure {
  std::vector<EntryRef> leaving;  // of the segment, the least worth first, children before parents
  double lost_per_byte = 0;       // value that goes for each byte that comes back
};

// `here`: what is known to live in the segment. nullopt: too much of it must stay.
// REQUIRES: index.weighs(Place::kDisk).
std::optional<Departure> PlanDeparture(PrefixIndex& index, const store::DiskSegment& segment,
                                       std::span<const EntryRef> here);
// `leaving`, and all that stands on it on disk; each once, children before parents.
std::vector<EntryRef> WithAllBelow(const PrefixIndex& index, std::span<const EntryRef> leaving);

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_CORE_DEPARTURE_H_
