// Goal: what is slower than computing is never fetched, by tier.
#include "engine/resume/cost_model.h"

#include <gtest/gtest.h>

namespace cairn::engine {
namespace {

TEST(CostModel, NeverFetchesWhatIsSlowerThanComputing) {
  CostModel costs;
  costs.ObservePrefill(1000, 1.0);
  EXPECT_TRUE(costs.WorthFetching(1000, 0, 100 << 20));
  for (int i = 0; i < 30; ++i) costs.ObserveFetch(0, 100 << 20, 20.0);  // a disk of 5 MB/s
  EXPECT_FALSE(costs.WorthFetching(1000, 0, 100 << 20));
  EXPECT_TRUE(costs.WorthFetching(1000, 100 << 20, 0));  // host memory is as fast as before
  EXPECT_TRUE(costs.WorthFetching(100'000, 0, 100 << 20));
}

}  // namespace
}  // namespace cairn::engine
