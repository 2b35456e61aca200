#include "engine/serve/api_keys.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

namespace cairn::engine {
namespace {

using testing::HasSubstr;

constexpr char kKey[] = "sk-0123456789abcdef";

std::string ErrorOfText(const std::string& text) {
  return std::string(ApiKeys::Parse(text, "keys").status().message());
}

TEST(ApiKeys, NoneLetEverybodyIn) {
  EXPECT_TRUE(ApiKeys().LetIn(""));
  EXPECT_TRUE(ApiKeys().LetIn("Bearer whatever"));
}

TEST(ApiKeys, LetInWhoeverShowsOneOfThem) {
  const auto keys =
      ApiKeys::Parse("# ours\n" + std::string(kKey) + "\r\n\n  another-key-of-16  ", "keys");
  ASSERT_TRUE(keys.ok()) << keys.status();
  for (const char* good :
       {"Bearer sk-0123456789abcdef", "bearer  sk-0123456789abcdef ", "Bearer another-key-of-16"}) {
    EXPECT_TRUE(keys->LetIn(good)) << good;
  }
  for (const char* bad :
       {"", "Bearer", "Bearer ", kKey, "Basic sk-0123456789abcdef", "Bearer sk-0123456789abcde",
        "Bearer sk-0123456789abcdeF", "Bearer sk-0123456789abcdefg", "Bearer # ours",
        "Bearer sk-0123456789abcdef another-key-of-16"}) {
    EXPECT_FALSE(keys->LetIn(bad)) << bad;
  }
  EXPECT_FALSE(keys->LetIn("Bearer " + std::string(100'000, 'x')));
}

TEST(ApiKeys, ErrorsNameTheLineAndNoKey) {
  EXPECT_THAT(ErrorOfText(""), HasSubstr("no key"));
  EXPECT_THAT(ErrorOfText("# nothing\n\n"), HasSubstr("no key"));
  EXPECT_THAT(ErrorOfText(std::string(kKey) + "\nfifteen-letters"), HasSubstr("keys:2"));
  EXPECT_THAT(ErrorOfText(std::string(513, 'x')), HasSubstr("keys:1"));
  EXPECT_THAT(ErrorOfText("two words in one line"), HasSubstr("keys:1"));
  EXPECT_THAT(ErrorOfText("two words in one line"), testing::Not(HasSubstr("words")));
  EXPECT_TRUE(ApiKeys::Parse(std::string(16, 'x') + "\n" + std::string(512, 'y'), "keys").ok());
}

TEST(ApiKeys, AFileOthersMayReadIsRefused) {
  const std::string path = testing::TempDir() + "/api_keys_test";
  std::ofstream(path) << kKey << '\n';
  chmod(path.c_str(), 0644);
  EXPECT_TRUE(absl::IsFailedPrecondition(ApiKeys::Load(path).status()));
  chmod(path.c_str(), 0600);
  const auto keys = ApiKeys::Load(path);
  ASSERT_TRUE(keys.ok()) << keys.status();
  EXPECT_TRUE(keys->LetIn("Bearer sk-0123456789abcdef"));
  std::filesystem::remove(path);
  EXPECT_TRUE(absl::IsNotFound(ApiKeys::Load(path).status()));
}

}  // namespace
}  // namespace cairn::engine
