// What cairnctl prints and what it takes for a digest.
#include "tools/cairnctl/output.h"

#include <gtest/gtest.h>

#include "tools/cairnctl/admin_client.h"

namespace cairn::ctl {
namespace {

TEST(HumanBytes, ThreeDigitsAndADecimalUnit) {
  EXPECT_EQ(HumanBytes(0), "0 B");
  EXPECT_EQ(HumanBytes(999), "999 B");
  EXPECT_EQ(HumanBytes(1000), "1.0 kB");
  EXPECT_EQ(HumanBytes(449'824), "449.8 kB");
  EXPECT_EQ(HumanBytes(999'950), "1.0 MB");
  EXPECT_EQ(HumanBytes(3'685'000'000), "3.7 GB");
}

TEST(HumanAge, OneUnit) {
  EXPECT_EQ(HumanAge(-5), "0 s");
  EXPECT_EQ(HumanAge(119), "119 s");
  EXPECT_EQ(HumanAge(300), "5 min");
  EXPECT_EQ(HumanAge(7200), "2 h");
  EXPECT_EQ(HumanAge(4 * 86400), "4 d");
}

TEST(Table, PadsToTheWidestCell) {
  EXPECT_EQ(Table({{"name", "n"}, {"a", "12"}}), "name   n\na     12\n");
}

TEST(List, ShowsTiersAgeAndTokens) {
  v1::ListResponse list;
  v1::ListedPrefix* p = list.add_prefixes();
  p->set_digest(std::string(32, '\xab'));
  p->set_namespace_root(std::string(32, '\x01'));
  p->set_index(3);
  p->set_rows_host(true);
  p->set_rows_disk(true);
  p->set_checkpoint_disk(true);
  p->set_bytes(1500);
  p->set_last_used_wall_micros(1'000'000);
  const std::string text = ListText(list, 11'000'000);
  for (const char* part :
       {"abababababababab", "01010101", "512", "host+disk", "  disk", "1.5 kB", "10 s"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text;
  }
  const nlohmann::json json = ListJson(list);
  EXPECT_EQ(json[0]["digest"].get<std::string>().size(), 64u);
  EXPECT_EQ(json[0]["checkpoint_host"], false);
}

TEST(Stats, BytesAreShownTwice) {
  v1::StatsResponse stats;
  auto* count = stats.add_counts();
  count->set_name("host_used_bytes");
  count->set_value(2'500'000);
  EXPECT_NE(StatsText(stats).find("2500000"), std::string::npos);
  EXPECT_NE(StatsText(stats).find("2.5 MB"), std::string::npos);
  EXPECT_EQ(StatsJson(stats)["host_used_bytes"], 2'500'000);
}

TEST(DigestPrefix, EvenNumberOfEightOrMoreDigits) {
  EXPECT_EQ(ParseDigestPrefix("00ff10Ab").value(), std::string("\x00\xff\x10\xab", 4));
  EXPECT_TRUE(ParseDigestPrefix(std::string(64, 'a')).ok());
  for (const std::string bad : {"", "abc", "00ff10", "00ff10ab1", "zzff10ab"}) {
    EXPECT_FALSE(ParseDigestPrefix(bad).ok()) << bad;
  }
  EXPECT_FALSE(ParseDigestPrefix(std::string(66, 'a')).ok());
}

TEST(AdminClient, NobodyThereIsUnavailable) {
  AdminClient client(testing::TempDir() + "no-such.sock", absl::Milliseconds(500));
  const auto version = client.Version();
  EXPECT_TRUE(absl::IsUnavailable(version.status()) || absl::IsDeadlineExceeded(version.status()))
      << version.status();
}

}  // namespace
}  // namespace cairn::ctl
