#include "engine/resume/resume_point.h"

#include <algorithm>

#include "engine/state/replay_plan.h"
#include "store/base/limits.h"

namespace cairn::engine {

absl::Status CheckMatch(const cache::MatchResult& match, size_t asked) {
  bool sound = match.rows_blocks <= asked && match.rows_host_blocks <= match.rows_blocks;
  for (const cache::CheckpointHit& hit : match.checkpoints) {
    sound &= hit.blocks > 0 && hit.blocks <= match.rows_blocks;
  }
  if (sound) return absl::OkStatus();
  return absl::InternalError("the cache answered with a match longer than was asked");
}

namespace {

// Only of bytes, not of asking for them; and of what is on disk only the way from the daemon's
// memory: before the first byte leaves, all of the prefix is there.
double HiddenSeconds(const ResumePoint& point, const CostModel& costs, const Overlap& overlap) {
  const uint64_t bytes = point.host_bytes + point.disk_bytes;
  if (overlap.groups < 2 || bytes < overlap.bytes_min) return 0;
  const double loading = std::min(costs.FetchSeconds(point.host_bytes, point.disk_bytes),
                                  costs.FetchSeconds(bytes, 0)) -
                         costs.FetchSeconds(0, 0);
  const int64_t end = std::min(point.tokens() + overlap.step_tokens, overlap.prompt_tokens);
  const double computing = costs.PrefillSeconds(point.tokens(), std::max(end, point.tokens()));
  return std::min(loading, computing) * (1 - 1 / static_cast<double>(overlap.groups));
}

}  // namespace

ResumePoints RankResumePoints(const cache::MatchResult& match, const CachedModel& model,
                              const CostModel& costs, bool deepest_first, const Overlap& overlap) {
  const auto prefill_from = [&](int64_t blocks) {
    return costs.PrefillSeconds(blocks * kBlockTokens, match.rows_blocks * kBlockTokens);
  };
  ResumePoints found;
  found.prefill_seconds = prefill_from(0);
  const auto add = [&](uint32_t blocks, const ReplayPlan* replay, cache::Tier checkpoint) {
    const auto rows = static_cast<uint64_t>(model.layout.rows_entry_bytes());
    const auto state = static_cast<uint64_t>(model.layout.checkpoint_bytes());
    const uint32_t in_host = std::min(blocks, match.rows_host_blocks);
    ResumePoint point{.blocks = blocks, .replay = replay != nullptr};
    point.host_bytes = in_host * rows + (checkpoint == cache::Tier::kHost ? state : 0);
    point.disk_bytes = (blocks - in_host) * rows + (checkpoint == cache::Tier::kDisk ? state : 0);
    point.seconds = costs.FetchSeconds(point.host_bytes, point.disk_bytes) +
                    (replay != nullptr ? costs.ReplaySeconds(*replay) : 0) + prefill_from(blocks);
    if (replay == nullptr) point.seconds -= HiddenSeconds(point, costs, overlap);
    found.points.push_back(point);
  };
  for (const cache::CheckpointHit& hit : match.checkpoints) add(hit.blocks, nullptr, hit.tier);
  const auto add_replay = [&](uint32_t blocks) {
    if (blocks == 0 || !model.replays) return;
    const ReplayPlan plan = ReplayPlan::To(model.config, int64_t{blocks} * kBlockTokens);
    add(blocks, &plan, cache::Tier::kNone);
  };
  add_replay(match.rows_blocks);
  if (match.rows_host_blocks < match.rows_blocks) add_replay(match.rows_host_blocks);
  std::stable_sort(found.points.begin(), found.points.end(),
                   [deepest_first](const ResumePoint& a, const ResumePoint& b) {
                     if (deepest_first && a.blocks != b.blocks) return a.blocks > b.blocks;
                     return a.seconds < b.seconds;
                   });
  return found;
}

}  // namespace cairn::engine
