// Sizes and rates as people write them: what is taken, and what is refused.
#include "store/base/bytes_text.h"

#include <gtest/gtest.h>

namespace cairn {
namespace {

TEST(ParseBytes, BinaryAndDecimalUnits) {
  EXPECT_EQ(ParseBytes("512").value(), 512u);
  EXPECT_EQ(ParseBytes("64KiB").value(), 65536u);
  EXPECT_EQ(ParseBytes("1.5GiB").value(), 3ull << 29);
  EXPECT_EQ(ParseBytes("10GB").value(), 10'000'000'000u);
  for (const std::string bad : {"", "GiB", "1 GiB", "-1", "1.5", "1e400", "9999999TiB", "12kb"}) {
    EXPECT_FALSE(ParseBytes(bad).ok()) << bad;
  }
}

TEST(ParseByteRate, ASizeThatIsNotNothing) {
  EXPECT_EQ(ParseByteRate("32MiB/s").value(), 32u << 20);
  EXPECT_EQ(ParseByteRate("1000").value(), 1000u);
  for (const std::string bad : {"", "0", "0MB/s", "/s", "5MB/h", "MiB/s"}) {
    EXPECT_FALSE(ParseByteRate(bad).ok()) << bad;
  }
}

}  // namespace
}  // namespace cairn
