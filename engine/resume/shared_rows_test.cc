#include "engine/resume/shared_rows.h"

#include <gtest/gtest.h>

namespace cairn::engine {
namespace {

Digest Name(uint8_t first) {
  Digest digest;
  digest.bytes[0] = first;
  return digest;
}

TEST(SharedRows, ABlockIsOnceInMemoryAndLivesAsLongAsItIsHeld) {
  SharedRows rows;
  EXPECT_EQ(rows.Find(Name(1)), nullptr);
  SharedRows::Block first = rows.Add(Name(1), {1, 2, 3});
  SharedRows::Block second = rows.Add(Name(1), {1, 2, 3});
  EXPECT_EQ(first.get(), second.get());
  EXPECT_EQ(rows.Find(Name(1)).get(), first.get());
  EXPECT_EQ(rows.bytes(), 3);
  const SharedRows::Block other = rows.Add(Name(2), {4, 5});
  EXPECT_EQ(rows.bytes(), 5);
  first.reset();
  EXPECT_NE(rows.Find(Name(1)), nullptr);
  second.reset();
  EXPECT_EQ(rows.Find(Name(1)), nullptr);
  EXPECT_EQ(rows.bytes(), 2);
  EXPECT_EQ(*rows.Add(Name(1), {9}), (std::vector<uint8_t>{9}));
}

TEST(SharedRows, HeldBlocksAreFoundAmongManyThatWere) {
  SharedRows rows;
  const SharedRows::Block held = rows.Add(Name(255), {7});
  Digest digest;
  for (uint32_t i = 0; i < 10'000; ++i) {
    digest.bytes[1] = static_cast<uint8_t>(i);
    digest.bytes[2] = static_cast<uint8_t>(i >> 8);
    rows.Add(digest, {1});
  }
  EXPECT_EQ(rows.Find(Name(255)).get(), held.get());
  EXPECT_EQ(rows.bytes(), 1);
}

TEST(SharedRows, BlocksMayOutliveIt) {
  SharedRows::Block block;
  {
    SharedRows rows;
    block = rows.Add(Name(1), {1, 2});
  }
  EXPECT_EQ(*block, (std::vector<uint8_t>{1, 2}));
}

}  // namespace
}  // namespace cairn::engine
