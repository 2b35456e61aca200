// Goal: a trace that overfills the disk tier costs it little more than what is put, never goes over
// the capacity, and its hits are those of whole prefixes. Method: a made trace of prompts that
// share beginnings, through core and tiers on files in memory.
#include "tools/cairn-replay/store_replay.h"

#include <gtest/gtest.h>

#include <map>

#include "store/base/random.h"

namespace cairn::replay {
namespace {

// Prompts of 16 blocks: of 40 documents of 8 blocks, each followed by 8 blocks of its own.
Trace MadeTrace(int requests) {
  Trace trace;
  SeededRandom random(5);
  std::vector<std::vector<NodeId>> documents;
  const auto extend = [&](std::vector<NodeId> path, uint32_t blocks) {
    for (uint32_t i = 0; i < blocks; ++i) {
      trace.nodes.push_back({.parent = path.empty() ? kNoNode : path.back(),
                             .depth = static_cast<uint32_t>(path.size())});
      path.push_back(static_cast<NodeId>(trace.nodes.size() - 1));
    }
    return path;
  };
  for (int i = 0; i < 40; ++i) documents.push_back(extend({}, 8));
  for (int i = 0; i < requests; ++i) {
    Request request;
    request.blocks = extend(documents[random.Next() % documents.size()], 8);
    trace.blocks_requested += request.blocks.size();
    trace.requests.push_back(std::move(request));
  }
  return trace;
}

TEST(ReplayStore, StaysUnderTheCapacityAndWritesLittleTwice) {
  std::map<std::string, double> hit_rate;
  for (const std::string policy : {"lru", "s3fifo", "hazard"}) {
    SCOPED_TRACE(policy);
    const auto result = ReplayStore(MadeTrace(1500), 4000, policy, 1);
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_GT(result->evicted_blocks, 4000u);
    EXPECT_GT(result->moved_bytes, 0u);
    EXPECT_LT(result->write_amplification(), 1.3);
    EXPECT_LE(result->used_bytes_max, result->capacity_bytes);
    EXPECT_GT(result->used_bytes_max, result->capacity_bytes / 2);
    EXPECT_GT(result->hit_rate(), 0.3);
    EXPECT_LE(result->hit_rate(), 0.5);  // half of every prompt is new
    hit_rate[policy] = result->hit_rate();
  }
  // All documents fit, whoever chooses: nothing is lost by eviction by segment.
  EXPECT_GT(hit_rate["hazard"], hit_rate["lru"] - 0.01);
}

TEST(ReplayStore, BySegmentWhatIsUsedAgainIsKeptAmongWhatIsNot) {
  const auto by_age = ReplayStore(MadeTrace(1500), 500, "lru", 1);
  const auto by_worth = ReplayStore(MadeTrace(1500), 500, "hazard", 1);
  ASSERT_TRUE(by_age.ok() && by_worth.ok());
  EXPECT_GT(by_worth->hit_rate(), by_age->hit_rate() + 0.05);
  EXPECT_LT(by_worth->write_amplification(), 1.3);
}

TEST(ReplayStore, AnUnknownPolicyIsNamed) {
  const absl::Status status = ReplayStore(MadeTrace(1), 4000, "mru", 1).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_NE(std::string(status.message()).find("mru"), std::string::npos);
}

}  // namespace
}  // namespace cairn::replay
