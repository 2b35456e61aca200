// Bytes must survive the way there and back, literal text must not make marks, and an id out of
// the vocabulary must be named with its place.
#include "engine/text/byte_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/text/marks.h"

namespace cairn::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(ByteTokenizer, EveryByteIsItsOwnId) {
  std::string text;
  for (int byte = 0; byte < 256; ++byte) text.push_back(static_cast<char>(byte));
  for (const int64_t vocab : {256, 512}) {
    const ByteTokenizer tokenizer(vocab);
    const auto ids = tokenizer.Encode(text);
    ASSERT_TRUE(ids.ok());
    for (int32_t byte = 0; byte < 256; ++byte) {
      EXPECT_EQ((*ids)[static_cast<size_t>(byte)], byte);
      EXPECT_EQ(tokenizer.Bytes(byte), std::string(1, static_cast<char>(byte)));
    }
    EXPECT_EQ(tokenizer.Decode(*ids).value(), ReplaceBrokenUtf8(text));
  }
}

TEST(ByteTokenizer, MarksWhereThereIsRoom) {
  EXPECT_EQ(ByteTokenizer(256).Mark(kBos), std::nullopt);
  EXPECT_EQ(ByteTokenizer(257).Mark(kBos), 256);
  EXPECT_EQ(ByteTokenizer(257).Mark(kEos), std::nullopt);
  EXPECT_EQ(ByteTokenizer(512).Mark(kEndThink), 261);
  EXPECT_EQ(ByteTokenizer(512).Mark("<think> "), std::nullopt);
  EXPECT_EQ(ByteTokenizer(512).Mark(kDsml), std::nullopt);
  // Without room a mark is left out: there are no bytes that mean it.
  EXPECT_THAT(ByteTokenizer(257).Encode("a</think>b").value(), ElementsAre('a', 'b'));
}

TEST(ByteTokenizer, MarksAreFoundByTheirTextAndShown) {
  const ByteTokenizer tokenizer(512);
  const std::vector<int32_t> ids = {258, 'h', 'i', 261, 257, 300};
  EXPECT_EQ(tokenizer.Decode(ids).value(), "<｜User｜>hi</think><｜end▁of▁sentence｜><300>");
  EXPECT_EQ(tokenizer.Decode(ids, /*skip_special=*/true).value(), "hi<300>");
  EXPECT_THAT(tokenizer.Encode("<｜User｜>hi</think>").value(), ElementsAre(258, 'h', 'i', 261));
  EXPECT_THAT(tokenizer.Encode("<e>").value(), ElementsAre('<', 'e', '>'));
}

TEST(ByteTokenizer, LiteralTextMakesNoMark) {
  const TextRange literal[] = {{0, 7}, {14, 15}};
  EXPECT_EQ(ByteTokenizer(512).Encode("<think><think><think>", literal).value().size(), 7 + 1 + 7u);
}

TEST(ByteTokenizer, IdsOutOfTheVocabularyAreNamed) {
  const ByteTokenizer tokenizer(512);
  for (const int32_t bad : {-1, 512, 1 << 30}) {
    const std::vector<int32_t> ids = {1, 2, bad};
    for (const absl::Status& status : {tokenizer.Check(ids), tokenizer.Decode(ids).status()}) {
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
      EXPECT_THAT(std::string(status.message()),
                  HasSubstr("token 2: id " + std::to_string(bad) + " is outside"));
    }
  }
  EXPECT_FALSE(ByteTokenizer(100).Encode("hello").ok());
  EXPECT_TRUE(tokenizer.Check({}).ok());
}

}  // namespace
}  // namespace cairn::engine
