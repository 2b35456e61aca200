// Bytes must survive the way there and back, marks must not be forgeable by text, and an id out of
// the vocabulary must be named with its place.
#include "engine/model/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

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
    for (int32_t byte = 0; byte < 256; ++byte) EXPECT_EQ((*ids)[static_cast<size_t>(byte)], byte);
    EXPECT_EQ(tokenizer.Decode(*ids).value(), text);
  }
}

TEST(ByteTokenizer, SpecialsWhereThereIsRoom) {
  EXPECT_EQ(ByteTokenizer(256).Special(SpecialToken::kBos), std::nullopt);
  EXPECT_EQ(ByteTokenizer(257).Special(SpecialToken::kBos), 256);
  EXPECT_EQ(ByteTokenizer(257).Special(SpecialToken::kEos), std::nullopt);
  EXPECT_EQ(ByteTokenizer(512).Special(SpecialToken::kEndThink), 261);
}

TEST(ByteTokenizer, DecodeShowsSpecialsAndUnusedIds) {
  const std::vector<int32_t> ids = {256, 258, 'h', 'i', 257, 300};
  EXPECT_EQ(ByteTokenizer(512).Decode(ids).value(), "<bos><user>hi<eos><300>");
}

TEST(ByteTokenizer, TextCannotForgeAMark) {
  EXPECT_THAT(ByteTokenizer(512).Encode("<e>").value(), ElementsAre('<', 'e', '>'));
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
