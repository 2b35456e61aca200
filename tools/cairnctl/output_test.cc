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
  p->set_rows_gpu(true);
  p->set_bytes(1500);
  p->set_last_used_wall_micros(1'000'000);
  const std::string text = ListText(list, 11'000'000);
  for (const char* part :
       {"abababababababab", "01010101", "512", "gpu+host+disk", "  disk", "1.5 kB", "10 s"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text;
  }
  const nlohmann::json json = ListJson(list);
  EXPECT_EQ(json[0]["digest"].get<std::string>().size(), 64u);
  EXPECT_EQ(json[0]["checkpoint_host"], false);
  EXPECT_EQ(json[0]["rows_gpu"], true);
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

TEST(Verify, ShowsHowFarHowFastAndHowLong) {
  v1::VerifyEvent event;
  event.set_total_entries(10);
  event.set_total_bytes(4'000'000);
  event.set_elapsed_millis(0);
  EXPECT_EQ(VerifyProgress(event), "verified 0 of 10 entries, 0 B of 4.0 MB");
  event.set_entries(3);
  event.set_bytes(1'000'000);
  event.set_elapsed_millis(2000);
  EXPECT_EQ(VerifyProgress(event),
            "verified 3 of 10 entries, 1.0 MB of 4.0 MB, 500.0 kB/s, 6 s left");
  // More was put meanwhile than there was.
  event.set_entries(12);
  event.set_bytes(5'000'000);
  event.set_damaged(1);
  EXPECT_EQ(VerifyProgress(event),
            "verified 12 of 12 entries, 5.0 MB of 5.0 MB, 2.5 MB/s, 0 s left, 1 damaged");
}

TEST(Verify, TheReportSaysWhatBecameOfIt) {
  v1::VerifyEvent report;
  report.set_entries(5);
  report.set_bytes(3'000'000);
  report.set_elapsed_millis(1500);
  EXPECT_EQ(VerifyText(report), "verified 5 entries, 3.0 MB in 1.5 s (2.0 MB/s): 0 damaged\n");
  report.set_damaged(4);
  report.set_damaged_host(1);
  report.set_damaged_disk(2);
  report.set_damaged_gpu(1);
  report.set_healed(1);
  report.set_unreadable(4);
  const std::string text = VerifyText(report);
  for (const char* part : {"4 damaged (1 in host memory, 2 on disk, 1 in GPU memory)",
                           "1 of them with a good copy", "4 could not be read"}) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  }
  const nlohmann::json json = VerifyJson(report);
  EXPECT_EQ(json["damaged_disk"], 2);
  EXPECT_EQ(json["damaged_gpu"], 1);
  EXPECT_EQ(json["seconds"], 1.5);
  EXPECT_EQ(json["bytes_per_second"], 2e6);
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
