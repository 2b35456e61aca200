// cairnd's settings and secrets: what is taken, what wins, and what is refused by name.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

#include "cache/daemon/options.h"
#include "cache/daemon/secrets.h"

namespace cairn::cache {
namespace {

class Settings : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "cairn_settings." + std::to_string(getpid());
    ASSERT_TRUE(std::filesystem::create_directory(folder_));
  }
  void TearDown() override {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }
  std::string Write(const std::string& name, const std::string& text, mode_t mode = 0600) const {
    const std::string path = folder_ + "/" + name;
    std::ofstream(path) << text;
    ::chmod(path.c_str(), mode);
    return path;
  }
  static std::string ErrorOf(const DaemonText& text) {
    const auto settings = ParseSettings(text);
    return settings.ok() ? "" : std::string(settings.status().message());
  }
  std::string folder_;
};

TEST_F(Settings, DefaultsNeedADirectoryOnly) {
  EXPECT_NE(ErrorOf({}).find("--dir"), std::string::npos);
  const auto settings = ParseSettings({.dir = "/data"});
  ASSERT_TRUE(settings.ok()) << settings.status();
  EXPECT_EQ(settings->host_bytes, 1ull << 30);
  EXPECT_EQ(settings->policy.ToString(), CheckpointPolicy::Parse("every:2048+ends")->ToString());
  EXPECT_FALSE(settings->socket.empty());
  EXPECT_NE(settings->socket, settings->admin_socket);
  EXPECT_TRUE(settings->listen.empty());
}

TEST_F(Settings, TheScrubRateIsOfTheTiersUnlessItIsGiven) {
  const auto rate = [](const std::string& text) {
    const auto settings = ParseSettings(
        {.dir = "/data", .host_bytes = "1GiB", .disk_bytes = "10GiB", .scrub_rate = text});
    return settings.ok() ? static_cast<int64_t>(settings->scrub_bytes_per_second) : -1;
  };
  EXPECT_EQ(rate(""), (int64_t{11} << 30) / 86'400 + 1);
  EXPECT_EQ(rate("auto"), rate(""));
  EXPECT_EQ(rate("off"), 0);
  EXPECT_EQ(rate("32MiB/s"), 32 << 20);
  EXPECT_EQ(rate("0"), -1);
  EXPECT_NE(ErrorOf({.dir = "/data", .scrub_rate = "fast"}).find("--scrub-rate"),
            std::string::npos);
}

TEST_F(Settings, HugePagesAreTakenOnlyWhereTheyAreAskedFor) {
  EXPECT_FALSE(ParseSettings({.dir = "/data"})->huge_pages);
  EXPECT_FALSE(ParseSettings({.dir = "/data", .huge_pages = "off"})->huge_pages);
  EXPECT_TRUE(ParseSettings({.dir = "/data", .huge_pages = "on"})->huge_pages);
  EXPECT_NE(ErrorOf({.dir = "/data", .huge_pages = "yes"}).find("--huge-pages 'yes'"),
            std::string::npos);
}

TEST_F(Settings, AGpuPoolIsTakenOnlyWhereItIsAskedFor) {
  const auto settings = [](const std::string& gpu_bytes) {
    return ParseSettings({.dir = "/data", .gpu_bytes = gpu_bytes, .disk_bytes = "10GiB"});
  };
  EXPECT_EQ(settings("")->gpu_bytes, 0u);
  EXPECT_EQ(settings("off")->gpu_bytes, 0u);
  EXPECT_EQ(settings("16GiB")->gpu_bytes, 16ull << 30);
  EXPECT_GT(settings("16GiB")->scrub_bytes_per_second, settings("off")->scrub_bytes_per_second);
  EXPECT_NE(ErrorOf({.dir = "/data", .gpu_bytes = "half"}).find("--gpu-bytes"), std::string::npos);
  EXPECT_NE(ErrorOf({.dir = "/data", .gpu_bytes = "0"}).find("--gpu-bytes"), std::string::npos);
}

TEST_F(Settings, TheBulkPortGoesWithListen) {
  const auto bulk = [](const std::string& listen, const std::string& bulk_listen) {
    const auto settings =
        ParseSettings({.dir = "/data", .listen = listen, .bulk_listen = bulk_listen});
    return settings.ok() ? settings->bulk_listen : std::string(settings.status().message());
  };
  EXPECT_EQ(bulk("", ""), "");
  EXPECT_EQ(bulk("10.0.0.5:7070", ""), "10.0.0.5:0");
  EXPECT_EQ(bulk("[::1]:7070", ""), "[::1]:0");
  EXPECT_EQ(bulk("10.0.0.5:7070", "off"), "");
  EXPECT_EQ(bulk("10.0.0.5:7070", "10.0.0.5:7071"), "10.0.0.5:7071");
  EXPECT_NE(bulk("", "10.0.0.5:7071").find("--listen"), std::string::npos);
  EXPECT_NE(bulk("10.0.0.5:7070", "7071").find("--bulk-listen"), std::string::npos);
}

TEST_F(Settings, TlsIsWholeAndForListen) {
  const auto tls = [](const std::string& listen, const std::string& cert, const std::string& key,
                      const std::string& ca) {
    DaemonText text;
    text.dir = "/data";
    text.listen = listen;
    text.tls_cert = cert;
    text.tls_key = key;
    text.tls_client_ca = ca;
    const auto settings = ParseSettings(text);
    return settings.ok()
               ? absl::StrCat(settings->tls_cert, settings->tls_key, settings->tls_client_ca)
               : std::string(settings.status().message());
  };
  EXPECT_EQ(tls("10.0.0.5:7070", "c", "k", ""), "ck");
  EXPECT_EQ(tls("10.0.0.5:7070", "c", "k", "a"), "cka");
  EXPECT_NE(tls("10.0.0.5:7070", "c", "", "").find("--tls-key"), std::string::npos);
  EXPECT_NE(tls("10.0.0.5:7070", "", "k", "").find("--tls-cert"), std::string::npos);
  EXPECT_NE(tls("10.0.0.5:7070", "", "", "a").find("--tls-client-ca"), std::string::npos);
  EXPECT_NE(tls("", "c", "k", "").find("--listen"), std::string::npos);
}

TEST_F(Settings, AFlagWinsOverTheFile) {
  const std::string file = Write(
      "cairnd.toml",
      "dir = \"/from/file\"\nhost_bytes = \"2GiB\"\ndisk_bytes = 4294967296\npolicy = \"full\"\n");
  DaemonText text;
  text.config = file;
  text.host_bytes = "3GiB";
  const auto settings = ParseSettings(text);
  ASSERT_TRUE(settings.ok()) << settings.status();
  EXPECT_EQ(settings->dir, "/from/file");
  EXPECT_EQ(settings->host_bytes, 3ull << 30);
  EXPECT_EQ(settings->disk_bytes, 4ull << 30);
  EXPECT_TRUE(settings->policy.full);
}

TEST_F(Settings, TheExampleInDeployIsTaken) {
  const auto settings = ParseSettings({.config = "deploy/cairnd.toml"});
  ASSERT_TRUE(settings.ok()) << settings.status();
  EXPECT_EQ(settings->dir, "/var/lib/cairn");
  EXPECT_EQ(settings->host_bytes, 8ull << 30);
  EXPECT_TRUE(settings->policy.ends);
}

TEST_F(Settings, WhatIsWrongIsNamed) {
  DaemonText text;
  text.dir = "/data";
  text.host_bytes = "1000";
  EXPECT_NE(ErrorOf(text).find("--host-bytes"), std::string::npos);
  text.host_bytes = "1GiB";
  text.disk_bytes = "1MiB";  // less than a segment
  EXPECT_NE(ErrorOf(text).find("--disk-bytes"), std::string::npos);
  text.disk_bytes = "";
  text.policy = "sometimes";
  EXPECT_NE(ErrorOf(text).find("--policy"), std::string::npos);
  text.policy = "";
  text.log_level = "loud";
  EXPECT_NE(ErrorOf(text).find("--log-level"), std::string::npos);

  EXPECT_NE(ErrorOf({.config = Write("a.toml", "hots_bytes = 1\n")}).find("hots_bytes"),
            std::string::npos);
  EXPECT_NE(ErrorOf({.config = Write("b.toml", "dir = [1]\n")}).find("'dir'"), std::string::npos);
  EXPECT_NE(ErrorOf({.config = Write("c.toml", "dir = \"x\"\nwhat\n")}).find("c.toml:"),
            std::string::npos);
  EXPECT_NE(ErrorOf({.config = folder_ + "/none.toml"}).find("none.toml"), std::string::npos);
}

TEST_F(Settings, TheDefaultKeyIsMadeOnceAndKept) {
  SeededRandom random(1);
  const std::string path = folder_ + "/tenant.key";
  const auto made = LoadOrMakeKey(path, random);
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ(made->size(), 32u);
  EXPECT_EQ(LoadOrMakeKey(path, random).value(), *made);
  struct stat info = {};
  ASSERT_EQ(::stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  ::chmod(path.c_str(), 0640);
  EXPECT_TRUE(absl::IsFailedPrecondition(LoadOrMakeKey(path, random).status()));
  EXPECT_TRUE(
      absl::IsFailedPrecondition(LoadOrMakeKey(Write("short.key", "abc"), random).status()));
}

TEST_F(Settings, TenantKeysAreReadLineByLine) {
  const auto keys = LoadTenantKeys(Write(
      "tenants", "# people\nblue=sixteen bytes, ok\n\nred=000102030405060708090a0b0c0d0e0f\n"));
  ASSERT_TRUE(keys.ok()) << keys.status();
  EXPECT_EQ(keys->at("blue"), "sixteen bytes, ok");
  EXPECT_EQ(keys->at("red").size(), 16u);
  EXPECT_EQ(keys->at("red")[15], '\x0f');
  EXPECT_TRUE(absl::IsFailedPrecondition(
      LoadTenantKeys(Write("open", "a=0123456789abcdef\n", 0644)).status()));
  for (const std::string bad : {"nothing\n", "=0123456789abcdef\n", "a=short\n",
                                "a=0123456789abcdef\na=0123456789abcdef\n"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(LoadTenantKeys(Write("bad", bad)).status())) << bad;
  }
  EXPECT_TRUE(absl::IsNotFound(LoadTenantKeys(folder_ + "/none").status()));
}

}  // namespace
}  // namespace cairn::cache
