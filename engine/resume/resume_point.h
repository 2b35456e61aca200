// resume_point.h: where a prefix may be resumed, and which way is the fastest to the first token.
//
// At a checkpoint, what lies behind it is prefilled. Where rows lie without one, the state is
// replayed from them (state/replay_plan.h), which costs a bounded part of the prefill and may
// reach further than the last checkpoint. Rows in host memory may end before those on disk.
//
// Threads: functions. Units: blocks, bytes, seconds.
#ifndef CAIRN_ENGINE_RESUME_RESUME_POINT_H_
#define CAIRN_ENGINE_RESUME_RESUME_POINT_H_

#include <cstdint>
#include <vector>

#include "cache/client/cache_api.h"
#include "engine/resume/cost_model.h"
#include "engine/state/cached_session.h"
#include "store/base/limits.h"
#include "store/base/status.h"

namespace cairn::engine {

struct ResumePoint {
  uint32_t blocks = 0;
  bool replay = false;      // from rows alone
  uint64_t host_bytes = 0;  // to be fetched, by tier
  uint64_t disk_bytes = 0;
  // Fetch and compute, up to the end of all rows that were found, less what overlaps.
  double seconds = 0;

  int64_t tokens() const { return int64_t{blocks} * kBlockTokens; }
};

// A point is taken only if it should take no more of prefilling's time than this: near even there
// is nothing to gain, and what was learned of either may be off by some per cent.
inline constexpr double kResumeOverPrefill = 0.9;

struct ResumePoints {
  std::vector<ResumePoint> points;  // the best first
  double prefill_seconds = 0;       // of the same tokens, with nothing fetched

  bool Pays(const ResumePoint& point) const {
    return point.seconds < kResumeOverPrefill * prefill_seconds;
  }
};

// What computing can hide of loading (FetchRequest::groups): the first step behind a prefix goes on
// while all but the first group arrive.
struct Overlap {
  size_t groups = 1;       // 1: nothing
  uint64_t bytes_min = 0;  // of a prefix that arrives so
  int64_t step_tokens = 0;
  int64_t prompt_tokens = 0;
};

// INTERNAL: it says more than can be of `asked` blocks.
absl::Status CheckMatch(const cache::MatchResult& match, size_t asked);

// The best is the fastest or, whatever it costs, the deepest and of these the fastest. No replays
// for a model that has none. REQUIRES: CheckMatch.
ResumePoints RankResumePoints(const cache::MatchResult& match, const CachedModel& model,
                              const CostModel& costs, bool deepest_first,
                              const Overlap& overlap = {});

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_RESUME_RESUME_POINT_H_
