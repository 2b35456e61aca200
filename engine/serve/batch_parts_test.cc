// Goal: every item is in one part, and no part has sequences of different lengths. Method: steps
// as the scheduler makes them.
#include "engine/serve/batch_parts.h"

#include <gtest/gtest.h>

namespace cairn::engine {
namespace {

const std::vector<int32_t> kTokens(9);

BatchItem Item(size_t tokens, WantLogits want) {
  BatchItem item;
  item.tokens = std::span(kTokens).first(tokens);
  item.want = want;
  return item;
}

TEST(BatchParts, DecodingTogetherAndPrefillsAlone) {
  std::vector<BatchItem> items = {Item(1, WantLogits::kLast), Item(5, WantLogits::kNone),
                                  Item(1, WantLogits::kNone), Item(2, WantLogits::kLast),
                                  Item(1, WantLogits::kLast)};
  const std::vector<BatchPart> parts = PartsOf(items);
  ASSERT_EQ(parts.size(), 3u);
  EXPECT_EQ(parts[0].items, (std::vector<BatchItem*>{&items[0], &items[4], &items[2]}))
      << "those that want logits first";
  EXPECT_EQ(parts[0].wanting, 2u);
  EXPECT_EQ(parts[1].items, std::vector<BatchItem*>{&items[1]});
  EXPECT_EQ(parts[1].wanting, 0u);
  EXPECT_EQ(parts[2].items, std::vector<BatchItem*>{&items[3]});
  EXPECT_EQ(parts[2].wanting, 1u);
}

TEST(BatchParts, NoPartIsEmpty) {
  EXPECT_TRUE(PartsOf({}).empty());
  std::vector<BatchItem> prefill = {Item(7, WantLogits::kLast)};
  ASSERT_EQ(PartsOf(prefill).size(), 1u);
  EXPECT_EQ(PartsOf(prefill)[0].items, std::vector<BatchItem*>{prefill.data()});
  std::vector<BatchItem> decoding = {Item(1, WantLogits::kLast), Item(1, WantLogits::kLast)};
  ASSERT_EQ(PartsOf(decoding).size(), 1u);
  EXPECT_EQ(PartsOf(decoding)[0].wanting, 2u);
}

}  // namespace
}  // namespace cairn::engine
