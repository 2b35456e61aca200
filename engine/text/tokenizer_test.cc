// Scanner and patterns must cut alike, a stream must decode like the whole, marks must not be
// forgeable where text is literal, and one endless word must not take forever.
#include "engine/text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "engine/text/marks.h"
#include "engine/text/test_data.h"

namespace cairn::engine {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Ids = std::vector<int32_t>;

std::vector<std::string> Pieces(const PreTokenizer& cutter, std::string_view text) {
  std::vector<std::string> pieces;
  EXPECT_TRUE(cutter.Cut(text, [&](std::string_view piece) { pieces.emplace_back(piece); }).ok());
  return pieces;
}

TEST(DeepSeekScanner, CutsAsThePatternsDo) {
  const json file = json::parse(TestFile("tokenizer.json"));
  const PreTokenizer scanner = PreTokenizer::Make(file["pre_tokenizer"]).value();
  const PreTokenizer patterns = PreTokenizer::Make(file["pre_tokenizer"], false).value();
  SeededRandom random(7);
  for (int i = 0; i < 20000; ++i) {
    const std::string text = RandomText(random, 1 + random.Next() % 40);
    ASSERT_EQ(Pieces(scanner, text), Pieces(patterns, text)) << json(text);
  }
}

TEST(DeepSeekScanner, CutsEveryCodePointAmongNeighboursAsThePatternsDo) {
  const json file = json::parse(TestFile("tokenizer.json"));
  const PreTokenizer scanner = PreTokenizer::Make(file["pre_tokenizer"]).value();
  const PreTokenizer patterns = PreTokenizer::Make(file["pre_tokenizer"], false).value();
  std::string text;
  for (char32_t point = 0; point < 0x110000; ++point) {
    if (point >= 0xD800 && point <= 0xDFFF) continue;
    // Every neighbour that changes what a character may join.
    for (const char* before : {"a", " ", "\n", "-", "\u4E00"}) {
      text += before;
      AppendCodePoint(text, point);
    }
    if (text.size() < 60000 && point != 0x10FFFF) continue;
    ASSERT_EQ(Pieces(scanner, text), Pieces(patterns, text)) << "up to " << static_cast<int>(point);
    text.clear();
  }
}

TEST(HfTokenizer, ALongWordIsNotQuadratic) {
  const std::unique_ptr<Tokenizer> tokenizer = SmallTokenizer();
  SeededRandom random(1);
  std::string word;
  for (int i = 0; i < 1'000'000; ++i) word.push_back(static_cast<char>('a' + random.Next() % 26));
  // A quadratic merge would need 10^12 steps and run into the test's time limit.
  const Ids ids = tokenizer->Encode(word).value();
  EXPECT_LT(ids.size(), word.size());
  EXPECT_EQ(tokenizer->Decode(ids).value(), word);
  const std::string same(1'000'000, 'a');
  EXPECT_EQ(tokenizer->Decode(tokenizer->Encode(same).value()).value(), same);
}

TEST(HfTokenizer, LiteralTextMakesNoMarks) {
  const std::unique_ptr<Tokenizer> tokenizer = SmallTokenizer();
  const std::string forged = absl::StrCat("a", std::string(kUser), "b");
  const std::string text = absl::StrCat(std::string(kUser), forged, std::string(kEos));
  const int32_t user = tokenizer->Mark(kUser).value(), eos = tokenizer->Mark(kEos).value();
  const TextRange literal = {kUser.size(), kUser.size() + forged.size()};

  const Ids open = tokenizer->Encode(text).value();
  EXPECT_EQ(std::count(open.begin(), open.end(), user), 2);
  const Ids closed = tokenizer->Encode(text, {&literal, 1}).value();
  EXPECT_EQ(std::count(closed.begin(), closed.end(), user), 1);
  EXPECT_EQ(closed.front(), user);
  EXPECT_EQ(closed.back(), eos);
  EXPECT_EQ(tokenizer->Decode(closed).value(), text);

  // A mark that only reaches into literal text is text, too.
  const TextRange reaching = {3, 4};
  const Ids none = tokenizer->Encode(kUser, {&reaching, 1}).value();
  EXPECT_EQ(std::count(none.begin(), none.end(), user), 0);
  // Literal text beside a mark changes nothing.
  const TextRange beside[] = {{0, 1}, {1 + kUser.size(), 2 + kUser.size()}};
  EXPECT_EQ(tokenizer->Encode(forged, beside).value(), tokenizer->Encode(forged).value());
}

TEST(HfTokenizer, ThreadsShareOne) {
  const std::unique_ptr<Tokenizer> tokenizer = SmallTokenizer();
  const json cases = json::parse(TestFile("golden.json"));
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (const json& item : cases) {
        if (!item.contains("text")) continue;
        EXPECT_EQ(tokenizer->Encode(item["text"].get<std::string>()).value(),
                  item["ids"].get<Ids>());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(HfTokenizer, PaddedIdsAreEmptyAndOthersAreRefused) {
  const std::unique_ptr<Tokenizer> tokenizer = SmallTokenizer();
  EXPECT_EQ(tokenizer->Decode(Ids{4095}).value(), "");
  for (const int32_t bad : {-1, 4096}) {
    EXPECT_THAT(std::string(tokenizer->Decode(Ids{0, bad}).status().message()),
                HasSubstr("token 1: id " + std::to_string(bad) + " is outside"));
    EXPECT_FALSE(StreamDecoder(*tokenizer).Feed(bad).ok());
  }
  absl::StatusOr<TokenizerParts> parts = ParseTokenizerFile(TestFile("tokenizer.json"));
  EXPECT_THAT(std::string(HfTokenizer::Make(std::move(parts).value(), 100).status().message()),
              HasSubstr("model's vocabulary is 100"));
}

// ---- files that are refused ----

json SmallFile() { return json::parse(TestFile("tokenizer.json")); }

std::string Refusal(const json& file) {
  const absl::StatusOr<TokenizerParts> parts = ParseTokenizerFile(file.dump());
  EXPECT_EQ(parts.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(parts.status().message());
}

TEST(TokenizerFile, WhatIsNotSupportedIsNamed) {
  const auto with = [](const char* pointer, json value) {
    json file = SmallFile();
    file[json::json_pointer(pointer)] = std::move(value);
    return Refusal(file);
  };
  EXPECT_THAT(with("/model/byte_fallback", true), HasSubstr("model.byte_fallback: is not supp"));
  EXPECT_THAT(with("/model/type", "Unigram"), HasSubstr("model.type: only BPE"));
  EXPECT_THAT(with("/model/dropout", 0.1), HasSubstr("model.dropout"));
  EXPECT_THAT(with("/model/end_of_word_suffix", "</w>"), HasSubstr("model.end_of_word_suffix"));
  EXPECT_THAT(with("/normalizer", {{"type", "NFC"}}), HasSubstr("normalizer: is not supported"));
  EXPECT_THAT(with("/decoder/type", "Metaspace"), HasSubstr("decoder.type: only ByteLevel"));
  EXPECT_THAT(with("/truncation", {{"max_length", 5}}), HasSubstr("truncation"));
  EXPECT_THAT(with("/model/merges/3", "a b c"), HasSubstr("model.merges[3]"));
  EXPECT_THAT(with("/model/merges/3", {"a", "zzzzzz"}),
              HasSubstr("model.merges[3]: \"zzzzzz\" is"));
  EXPECT_THAT(with("/model/vocab/!", -1), HasSubstr("model.vocab[\"!\"]: must be an id"));
  EXPECT_THAT(with("/model/vocab/!", 5), HasSubstr("the id 5 is taken"));
  EXPECT_THAT(with("/added_tokens/0/id", 9), HasSubstr("added_tokens[0].id: is 9, but"));
  EXPECT_THAT(with("/added_tokens/0/content", ""), HasSubstr("added_tokens[0].content"));
  EXPECT_THAT(with("/added_tokens/0/lstrip", "no"), HasSubstr("added_tokens[0].lstrip: must be"));
  EXPECT_THAT(with("/pre_tokenizer/pretokenizers/1/behavior", "Torn"),
              HasSubstr("pre_tokenizer.pretokenizers[1].behavior: Torn"));
  EXPECT_THAT(with("/pre_tokenizer/pretokenizers/1/pattern", {{"Regex", "(a"}}),
              HasSubstr("pre_tokenizer.pretokenizers[1].pattern: pattern at byte 2"));
  EXPECT_THAT(with("/pre_tokenizer/pretokenizers/0", {{"type", "Metaspace"}}),
              HasSubstr("pre_tokenizer.pretokenizers[0]: the type Metaspace"));
  json file = SmallFile();
  file["model"]["vocab"].erase("!");
  EXPECT_THAT(Refusal(file), HasSubstr("no token for the byte 33"));
  EXPECT_FALSE(ParseTokenizerFile("{").ok());
}

TEST(TokenizerFile, DamagedFilesAreRefusedOrRead) {
  json file = SmallFile();
  // Small enough to be read often.
  file["model"]["merges"] = json::array({"a b"});
  json vocab = {{"ab", 300}};
  for (const auto& [token, id] : file["model"]["vocab"].items()) {
    if (id < 3 + 256) vocab[token] = id;
  }
  file["model"]["vocab"] = std::move(vocab);
  const std::string text = file.dump();
  SeededRandom random(17);
  size_t refused = 0;
  for (int i = 0; i < 300; ++i) {
    std::string damaged = text;
    static constexpr std::string_view kBytes = "\"{}[]:,\\0123nulltrue \xFF-e.";
    damaged[random.Next() % text.size()] = kBytes[random.Next() % kBytes.size()];
    const absl::StatusOr<TokenizerParts> parts = ParseTokenizerFile(damaged);
    if (parts.ok()) continue;
    ++refused;
    EXPECT_EQ(parts.status().code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_GT(refused, 100u);
}

TEST(TokenizerFile, WithoutAFileBytesAreTheTokens) {
  EXPECT_EQ(TokenizerOf("engine/text", "", 300).value()->Encode("a").value(), Ids{'a'});
  const std::string path = "engine/text/testdata";
  EXPECT_EQ(TokenizerOf(path, "", 4096).value()->vocab(), 4096);
  EXPECT_NE(TokenizerOf(path, "", 4096).value()->Mark(kDsml), std::nullopt);
  EXPECT_NE(TokenizerOf("x", path + "/tokenizer.json", 4096).value()->Mark(kDsml), std::nullopt);
  const absl::Status missing = TokenizerOf(path, path + "/none.json", 4096).status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
}

// ---- patterns ----

TEST(Pattern, WhatTheEnginesReadDifferentlyIsRefused) {
  for (const char* regex :
       {R"(\w+)", R"(a\b)", R"(\h)", "^a", "a$", "[a[b]]", "[a&&b]", "(?<n>a)", "(?i)a", "a{,3}",
        "a{1,2}+", R"(\pL)", "\\", "(*UCP)a", "[]a]", R"(\u12)"}) {
    EXPECT_EQ(Pattern::Compile(regex).status().code(), absl::StatusCode::kInvalidArgument) << regex;
  }
  EXPECT_EQ(ToPcre(R"([^\s\u4E00]|\S)").value(), R"([^\p{White_Space}\x{4E00}]|\P{White_Space})");
}

TEST(Pattern, EndlessBacktrackingIsStopped) {
  const Pattern pattern = Pattern::Compile("(?:(?:a|aa)+)+[bc]").value();
  const absl::Status status = pattern.ForEachMatch(std::string(200, 'a'), [](size_t, size_t) {});
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
}

TEST(Pattern, MongolianVowelSeparatorIsNoSpace) {
  const Pattern pattern = Pattern::Compile(R"(\s)").value();
  size_t matches = 0;
  ASSERT_TRUE(pattern.ForEachMatch("\u180E\u3000\u0085", [&](size_t, size_t) { ++matches; }).ok());
  EXPECT_EQ(matches, 2u);
}

// ---- UTF-8 ----

TEST(Utf8, AStreamIsTheWholeAtAnyCuts) {
  SeededRandom random(3);
  for (int i = 0; i < 2000; ++i) {
    std::string bytes = RandomText(random, random.Next() % 12);
    for (size_t breaks = random.Next() % 4; breaks > 0 && !bytes.empty(); --breaks) {
      bytes[random.Next() % bytes.size()] = static_cast<char>(random.Next());
    }
    Utf8Stream stream;
    std::string out;
    for (size_t at = 0; at < bytes.size();) {
      const size_t n = 1 + random.Next() % 3;
      const std::string piece = stream.Feed(std::string_view(bytes).substr(at, n));
      EXPECT_TRUE(IsUtf8(piece));
      out += piece;
      at += n;
    }
    out += stream.Finish();
    EXPECT_EQ(out, ReplaceBrokenUtf8(bytes));
    EXPECT_TRUE(IsUtf8(out));
    EXPECT_EQ(IsUtf8(bytes), out == bytes);
  }
}

TEST(Utf8, OneReplacementForEachMaximalPart) {
  EXPECT_EQ(ReplaceBrokenUtf8("a\xF0\x9F\x98z"), "a\uFFFDz");
  EXPECT_EQ(ReplaceBrokenUtf8("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(ReplaceBrokenUtf8("\xC0\x80"), "\uFFFD\uFFFD");
  EXPECT_EQ(ReplaceBrokenUtf8("\xE2\x82"), "\uFFFD");
}

}  // namespace
}  // namespace cairn::engine
