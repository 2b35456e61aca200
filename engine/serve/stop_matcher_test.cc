#include "engine/serve/stop_matcher.h"

#include <gtest/gtest.h>

#include "store/base/random.h"

namespace cairn::engine {
namespace {

struct Result {
  std::string text;
  bool stopped = false;
  friend bool operator==(const Result&, const Result&) = default;
};

Result Match(const std::vector<std::string>& stops, const std::vector<std::string>& pieces) {
  StopMatcher matcher(stops);
  Result result;
  for (const std::string& piece : pieces) result.text += matcher.Feed(piece);
  result.stopped = matcher.stopped();
  result.text += matcher.Finish();
  return result;
}

TEST(StopMatcher, CutsBeforeTheMatch) {
  EXPECT_EQ(Match({"END"}, {"one END two"}), (Result{"one ", true}));
  EXPECT_EQ(Match({"END"}, {"one E", "N", "D", " two"}), (Result{"one ", true}));
  EXPECT_EQ(Match({"END"}, {"one EN", "d"}), (Result{"one ENd", false}));
  EXPECT_EQ(Match({"END"}, {"one EN"}), (Result{"one EN", false}));
  EXPECT_EQ(Match({}, {"a", "b"}), (Result{"ab", false}));
}

TEST(StopMatcher, TheFirstToEndCountsAndThenTheLongest) {
  EXPECT_EQ(Match({"abcd", "b"}, {"xabcd"}), (Result{"xa", true}));
  EXPECT_EQ(Match({"cd", "abcd"}, {"xabcd"}), (Result{"x", true}));
}

TEST(StopMatcher, HoldsBackNoMoreThanCouldMatch) {
  StopMatcher matcher({"aab"});
  EXPECT_EQ(matcher.Feed("xa"), "x");
  EXPECT_EQ(matcher.Feed("a"), "");
  EXPECT_EQ(matcher.Feed("a"), "a");
  EXPECT_EQ(matcher.Feed("b"), "");
  EXPECT_TRUE(matcher.stopped());
  EXPECT_EQ(matcher.Feed("more"), "");
}

TEST(StopMatcher, CutsDoNotMatter) {
  SeededRandom random(1);
  for (int round = 0; round < 2000; ++round) {
    const auto text = [&](size_t length) {
      std::string letters;
      for (size_t i = 0; i < length; ++i) letters += static_cast<char>('a' + random.Next() % 2);
      return letters;
    };
    std::vector<std::string> stops;
    for (uint64_t i = random.Next() % 4; i > 0; --i) stops.push_back(text(2 + random.Next() % 6));
    const std::string whole = text(60);
    std::vector<std::string> pieces;
    for (size_t at = 0; at < whole.size();) {
      const size_t n = 1 + random.Next() % 7;
      pieces.push_back(whole.substr(at, n));
      at += n;
    }
    EXPECT_EQ(Match(stops, pieces), Match(stops, {whole})) << whole;
  }
}

}  // namespace
}  // namespace cairn::engine
