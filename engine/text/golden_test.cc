// The ids and texts that the tokenizers library gives (testdata/make_golden.py), by both ways of
// cutting; and how far its idea of Unicode is from PCRE2's.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/text/test_data.h"
#include "engine/text/unicode_class.h"

namespace cairn::engine {
namespace {

using nlohmann::json;
using Ids = std::vector<int32_t>;

std::string FromHex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i < hex.size(); i += 2) {
    bytes.push_back(static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

class Golden : public ::testing::TestWithParam<bool> {};

TEST_P(Golden, EveryTextGivesTheLibrarysIdsAndComesBack) {
  const std::unique_ptr<Tokenizer> tokenizer = SmallTokenizer(GetParam());
  const json cases = json::parse(TestFile("golden.json"));
  ASSERT_GT(cases.size(), 400u);
  for (const json& item : cases) {
    const std::string text =
        item.contains("text") ? item["text"].get<std::string>() : FromHex(item["bytes"]);
    const Ids ids = item["ids"].get<Ids>();
    EXPECT_EQ(tokenizer->Encode(text).value(), ids) << item.dump();
    EXPECT_EQ(tokenizer->Decode(ids, /*skip_special=*/true).value(), item["decoded"]);

    StreamDecoder stream(*tokenizer, /*skip_special=*/true);
    std::string streamed;
    for (const int32_t id : ids) {
      const std::string piece = stream.Feed(id).value();
      EXPECT_TRUE(IsUtf8(piece));
      streamed += piece;
    }
    EXPECT_EQ(streamed + stream.Finish(), item["decoded"]);
  }
}

INSTANTIATE_TEST_SUITE_P(ScannerAndPatterns, Golden, ::testing::Bool());

TEST(GoldenVariants, SplitsFlagsAndFormsOfMerges) {
  const json all = json::parse(TestFile("variants.json"));
  ASSERT_GT(all["cases"].size(), 30u);
  for (const json& item : all["cases"]) {
    json merges = json::array();
    for (const json& merge : all["merges"]) {
      const std::string left = merge[0], right = merge[1];
      merges.push_back(item["pairs"].get<bool>() ? merge : json(left + " " + right));
    }
    const json file = {{"pre_tokenizer", item["pre_tokenizer"]},
                       {"added_tokens", item["added_tokens"]},
                       {"decoder", {{"type", "ByteLevel"}}},
                       {"model",
                        {{"type", "BPE"},
                         {"ignore_merges", item["ignore_merges"]},
                         {"vocab", all["vocab"]},
                         {"merges", merges}}}};
    absl::StatusOr<TokenizerParts> parts = ParseTokenizerFile(file.dump());
    ASSERT_TRUE(parts.ok()) << item["name"] << parts.status();
    const std::unique_ptr<Tokenizer> tokenizer =
        HfTokenizer::Make(std::move(parts).value(), 1000).value();
    for (size_t i = 0; i < all["texts"].size(); ++i) {
      EXPECT_EQ(tokenizer->Encode(all["texts"][i].get<std::string>()).value(),
                item["ids"][i].get<Ids>())
          << item["name"] << ": " << all["texts"][i];
    }
  }
}

// The library's tables are of a later Unicode. Where the two differ, PCRE2 must not know the code
// point at all: then only characters younger than its version can be cut differently.
TEST(GoldenUnicode, OnlyCodePointsThatPcreDoesNotKnowDiffer) {
  const uint8_t* classes = UnicodeClasses().value();
  std::vector<uint8_t> library(kCodePoints);
  for (const json& run : json::parse(TestFile("unicode.json"))) {
    for (size_t point = run[0]; point <= run[1].get<size_t>(); ++point) library[point] = run[2];
  }
  size_t differ = 0;
  for (char32_t point = 0; point < kCodePoints; ++point) {
    const int kinds = classes[point] & (kLetterOrMark | kPunctOrSymbol | kNumber | kSpace);
    if (kinds == library[point]) continue;
    ++differ;
    EXPECT_TRUE(classes[point] & kUnassigned) << std::hex << static_cast<uint32_t>(point) << ": "
                                              << kinds << ", the library's " << int{library[point]};
  }
  RecordProperty("differ", static_cast<int>(differ));
  std::printf("code points of another kind than in the golden files' library: %zu\n", differ);
}

}  // namespace
}  // namespace cairn::engine
