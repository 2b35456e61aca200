// Goal: reads through bounce memory go on while the bytes of others are worked on.
#include "store/device/io_bounce.h"

#include <gtest/gtest.h>

namespace cairn::store {
namespace {

TEST(BouncedReadsInFlight, SomeReadIsAlwaysUnderWay) {
  EXPECT_EQ(BouncedReadsInFlightMax(0), 0u);
  for (size_t pieces = 1; pieces <= 100; ++pieces) {
    EXPECT_GE(BouncedReadsInFlightMax(pieces), 1u) << pieces;
    EXPECT_LE(BouncedReadsInFlightMax(pieces), pieces);
  }
}

TEST(BouncedReadsInFlight, AQuarterComesAfterTheRest) {
  EXPECT_EQ(BouncedReadsInFlightMax(1), 1u);  // one read more costs as much as one copy
  EXPECT_EQ(BouncedReadsInFlightMax(3), 3u);
  EXPECT_EQ(BouncedReadsInFlightMax(4), 3u);
  EXPECT_EQ(BouncedReadsInFlightMax(8), 6u);
  EXPECT_EQ(BouncedReadsInFlightMax(16), 12u);
}

TEST(BouncedReadsInFlight, LongBatchesLeaveSlotsToStartIn) {
  for (const size_t pieces : {16, 17, 64, 100'000}) {
    EXPECT_EQ(BouncedReadsInFlightMax(pieces), 12u) << pieces;
    EXPECT_LT(BouncedReadsInFlightMax(pieces), static_cast<unsigned>(kBounceSlots));
  }
}

}  // namespace
}  // namespace cairn::store
