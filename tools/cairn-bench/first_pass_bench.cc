// An engine's first pass over mapped bytes: each page of the arena that it has not seen yet costs
// it a fault, one for 4 KiB or one for 2 MiB (cairnd --huge-pages on).
#include <memory>

#include "store/base/checksum.h"
#include "store/base/clock.h"
#include "store/device/shared_memory.h"
#include "tools/cairn-bench/benches.h"
#include "tools/cairn-bench/flash_layout.h"

namespace cairn::bench {
namespace {

constexpr uint64_t kArenaBytes = 230ull << 20;  // 64k tokens of Flash

// GB/s over all of `bytes`, part by part.
double Verify(std::span<const uint8_t> bytes) {
  const std::vector<uint32_t> parts = FlashLayout().part_bytes(cache::LayoutScope::kPrefix);
  const int64_t start = RealClock().NowNanos();
  uint64_t all = 0, at = 0;
  for (size_t i = 0; at + parts[i] <= bytes.size(); i = (i + 1) % parts.size()) {
    all ^= Checksum(bytes.subspan(at, parts[i]));
    at += parts[i];
  }
  const auto nanos = static_cast<double>(RealClock().NowNanos() - start + (all == 0 ? 1 : 0));
  return static_cast<double>(at) / nanos;
}

absl::StatusOr<double> MeasureFirst(const store::SharedMemory& arena) {
  CAIRN_ASSIGN_OR_RETURN(const store::SharedMemory seen,
                         store::SharedMemory::MapReadOnly(
                             store::FileDescriptor::Duplicate(arena.descriptor()), arena.size()));
  return Verify(seen.bytes());
}

absl::StatusOr<Prepared> PrepareFirstPass(const BenchContext&) {
  CAIRN_ASSIGN_OR_RETURN(store::SharedMemory made,
                         store::SharedMemory::Create("bench", {.bytes = kArenaBytes}));
  const auto small = std::make_shared<store::SharedMemory>(std::move(made));
  Prepared prepared;
  prepared.contenders = {{"pages that were seen before", Role::kLimit,
                          [small]() -> absl::StatusOr<double> { return Verify(small->bytes()); }},
                         {"the first time", Role::kOurs, [small] { return MeasureFirst(*small); }}};
  absl::StatusOr<store::SharedMemory> in_huge =
      store::SharedMemory::Create("bench", {.bytes = kArenaBytes, .huge_pages = true});
  if (!in_huge.ok()) {
    prepared.left_out.push_back(std::string(in_huge.status().message()));
    return prepared;
  }
  const auto huge = std::make_shared<store::SharedMemory>(*std::move(in_huge));
  prepared.contenders.push_back(
      {"the first time, in huge pages", Role::kRival, [huge] { return MeasureFirst(*huge); }});
  return prepared;
}

}  // namespace

void AddFirstPassBench(std::vector<Bench>& benches) {
  benches.push_back({.name = "first-pass",
                     .what = "an engine verifies 241 MB of the arena that it has just mapped",
                     .unit = "GB/s",
                     .higher_is_better = true,
                     .ratio_bound = 0,
                     .figure_bound = 0,
                     .prepare = PrepareFirstPass});
}

}  // namespace cairn::bench
