// Goal: both ends agree on where every byte of a transfer goes, whatever the groups. Method: a walk
// over small entries; what is asked for in parts, against the layout's.
#include "cache/client/transfer_order.h"

#include <gtest/gtest.h>

#include <string>

#include "cache/client/protocol.h"

namespace cairn::cache {
namespace {

// "entry:offset+bytes" of every piece, '|' where a group is done.
std::string Walk(TransferCursor cursor, uint64_t step = UINT64_MAX) {
  std::string out;
  size_t group = 0;
  while (!cursor.Done()) {
    for (; group < cursor.group(); ++group) out += "|";
    const uint64_t bytes = std::min(step, cursor.left());
    absl::StrAppend(&out, out.empty() || out.back() == '|' ? "" : " ", cursor.entry(), ":",
                    cursor.offset(), "+", bytes);
    cursor.Advance(bytes);
  }
  EXPECT_EQ(cursor.group(), cursor.groups());
  return out;
}

TEST(TransferCursor, WithoutGroupsEntryAfterEntry) {
  EXPECT_EQ(Walk({{6, 6, 10}, 2, {}}), "0:0+6 1:0+6 2:0+10");
  EXPECT_EQ(Walk({{6, 10}, 1, {}}, 4), "0:0+4 0:4+2 1:0+4 1:4+4 1:8+2");
}

TEST(TransferCursor, InGroupsOfEachEntryItsPart) {
  EXPECT_EQ(Walk({{6, 6, 10}, 2, {{2, 1}, {4, 9}}}),
            "0:0+2 1:0+2 2:0+1|0:2+2 1:2+2 2:1+8|0:4+2 1:4+2 2:9+1");
  EXPECT_EQ(Walk({{6}, 1, {{5, 0}}}), "0:0+5|0:5+1");
}

TEST(TransferCursor, WhatHasNoBytesIsPassedOver) {
  // A group without rows, one without any, one without a checkpoint.
  EXPECT_EQ(Walk({{6, 10}, 1, {{0, 3}, {0, 3}, {6, 3}}}), "1:0+3||0:0+6|1:3+7");
  EXPECT_EQ(Walk({{10}, 0, {{2, 4}}}), "0:0+4|0:4+6");  // a checkpoint only
  EXPECT_EQ(Walk({{6, 0}, 1, {{2, 0}}}), "0:0+2|0:2+4");
  EXPECT_EQ(Walk({{}, 0, {{2, 4}}}), "");
  EXPECT_EQ(Walk({{0, 0}, 1, {}}), "");
}

// A peer may ask for anything: never beyond an entry.
TEST(TransferCursor, EndsBeyondAnEntryAreItsEnd) {
  EXPECT_EQ(Walk({{6, 10}, 1, {{100, 100}, {200, 200}}}), "0:0+6 1:0+10");
}

class GroupEndsTest : public testing::Test {
 protected:
  static LayoutDescriptor Layout() {
    LayoutDescriptor layout;
    layout.components = {{"a", LayoutScope::kPrefix, 4, 32, 2, 0, "x"},
                         {"b", LayoutScope::kPrefix, 128, 1, 7, 0, "x"},
                         {"w", LayoutScope::kTrailing, 1, 128, 1, 0, "x"}};
    return layout;
  }
  const EntryShapes shapes_{Layout()};
};

// Each byte in one stripe, and in its group.
TEST(SizesInStripe, TogetherAreTheWhole) {
  const std::vector<uint64_t> sizes = {6, 6, 10};
  const std::vector<GroupEnd> ends = {{0, 4}, {2, 4}};
  EXPECT_EQ(SizesInStripe(sizes, 0, 1), sizes);
  EXPECT_EQ(Walk({SizesInStripe(sizes, 0, 2), 2, ends}), "2:0+4|0:0+2|0:2+4 2:4+6");
  EXPECT_EQ(Walk({SizesInStripe(sizes, 1, 2), 2, ends}), "|1:0+2|1:2+4");
  EXPECT_EQ(Walk({SizesInStripe(sizes, 3, 4), 2, ends}), "");
}

TEST_F(GroupEndsTest, PartsBecomeBytes) {
  EXPECT_TRUE(GroupEnds({}, shapes_)->empty());
  const std::vector<PartGroup> one = {{2, 1}};
  EXPECT_TRUE(GroupEnds(one, shapes_)->empty());
  const std::vector<PartGroup> three = {{0, 1}, {1, 1}, {2, 1}};
  EXPECT_EQ(*GroupEnds(three, shapes_), (std::vector<GroupEnd>{{0, 128}, {64, 128}}));
}

TEST_F(GroupEndsTest, WhatCannotBeIsRefused) {
  const std::vector<std::vector<PartGroup>> bad = {
      {{1, 1}},                                            // not all parts
      {{1, 0}, {0, 1}, {2, 1}},                            // back again
      {{3, 1}, {2, 1}},                                    // beyond the layout
      std::vector<PartGroup>(kFetchGroupsMax + 1, {2, 1})  // too many
  };
  for (const auto& groups : bad) {
    EXPECT_TRUE(absl::IsInvalidArgument(GroupEnds(groups, shapes_).status()));
  }
}

}  // namespace
}  // namespace cairn::cache
