// Goal: what fetching costs is learned by tier.
#include "engine/resume/cost_model.h"

#include <gtest/gtest.h>

namespace cairn::engine {
namespace {

TEST(CostModel, ASlowTierIsLearned) {
  CostModel costs;
  const auto worth = [&](int64_t tokens, uint64_t host_bytes, uint64_t disk_bytes) {
    return costs.FetchSeconds(host_bytes, disk_bytes) < costs.PrefillSeconds(tokens);
  };
  costs.ObservePrefill(1000, 1.0);
  EXPECT_TRUE(worth(1000, 0, 100 << 20));
  for (int i = 0; i < 30; ++i) costs.ObserveFetch(0, 100 << 20, 20.0);  // a disk of 5 MB/s
  EXPECT_FALSE(worth(1000, 0, 100 << 20));
  EXPECT_TRUE(worth(1000, 100 << 20, 0));  // host memory is as fast as before
  EXPECT_TRUE(worth(100'000, 0, 100 << 20));
}

}  // namespace
}  // namespace cairn::engine
