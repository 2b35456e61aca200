// Goal (P9): every released format opens with all its entries, or is refused by name; it is never
// misread. Method: the stores that each format left in tests/compat/<version>, copied, opened as
// they are and without their catalog; and today's with a version that does not exist yet, in the
// FORMAT file and, that being lost, in a segment.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>

#include "store/index/rocks_catalog.h"
#include "store/recovery/check.h"
#include "store/segment/record_format.h"
#include "tests/compat/compat_store.h"

namespace cairn::compat {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

fs::path StoreOf(const std::string& version) { return fs::path("tests/compat") / version; }

// Every folder that a generator left.
std::vector<std::string> Versions() {
  std::vector<std::string> versions;
  for (const auto& entry : fs::directory_iterator("tests/compat")) {
    if (entry.is_directory()) versions.push_back(entry.path().filename().string());
  }
  return versions;
}

// The bytes of every file but the lock's.
std::map<std::string, std::string> Contents(const fs::path& directory) {
  std::map<std::string, std::string> contents;
  for (const auto& entry : fs::recursive_directory_iterator(directory)) {
    if (!entry.is_regular_file() || entry.path().filename() == "LOCK") continue;
    std::ifstream file(entry.path(), std::ios::binary);
    contents[entry.path()].assign(std::istreambuf_iterator<char>(file), {});
  }
  return contents;
}

class CompatTest : public ::testing::Test {
 protected:
  CompatTest()
      : copy_(fs::path(testing::TempDir()) / ("cairn_compat." + std::to_string(getpid()))) {}
  ~CompatTest() override { fs::remove_all(copy_); }

  const fs::path& CopyOf(const std::string& version) {
    fs::remove_all(copy_);
    fs::copy(StoreOf(version), copy_, fs::copy_options::recursive);
    return copy_;
  }
  // Opening and checking the copy are refused, naming `version`, and change nothing.
  void ExpectRefused(const std::string& version) {
    const std::map<std::string, std::string> before = Contents(copy_);
    store::UringFileSystem files;
    const std::unique_ptr<store::Catalog> catalog = store::MakeRocksCatalog();
    for (const absl::Status& status :
         {OpenStore(copy_).status(), store::CheckDirectory(copy_, files, *catalog).status()}) {
      EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
      EXPECT_THAT(std::string(status.message()), HasSubstr("format version " + version));
    }
    EXPECT_TRUE(Contents(copy_) == before) << "a refused store was changed";
  }

  const fs::path copy_;
};

TEST_F(CompatTest, TodaysFormatHasAStore) {
  EXPECT_TRUE(fs::is_directory(StoreOf(std::to_string(store::kFormatVersion))))
      << "a new format needs a store of its own: tests/compat/README.md";
}

TEST_F(CompatTest, EveryReleasedFormatOpensWithAllItsEntries) {
  for (const std::string& version : Versions()) {
    const auto opened = OpenStore(CopyOf(version));
    ASSERT_TRUE(opened.ok()) << version << ": " << opened.status();
    EXPECT_FALSE((*opened)->report.catalog_rebuilt) << (*opened)->report.catalog_trouble;
    EXPECT_EQ((*opened)->report.damaged_segments, 0u);
    for (uint64_t number = 0; number + 1 < kPrefixes; ++number) {
      EXPECT_EQ(CheckPrefix(**opened, number), absl::OkStatus()) << version;
    }
    EXPECT_TRUE(absl::IsNotFound(CheckPrefix(**opened, kPrefixes - 1))) << "it was evicted";
    // And it is written on.
    EXPECT_EQ(Fill(**opened), absl::OkStatus()) << version;
  }
}

TEST_F(CompatTest, EveryReleasedFormatIsRebuiltFromItsSegments) {
  for (const std::string& version : Versions()) {
    fs::remove_all(CopyOf(version) / "catalog");
    const auto opened = OpenStore(copy_);
    ASSERT_TRUE(opened.ok()) << version << ": " << opened.status();
    EXPECT_TRUE((*opened)->report.catalog_rebuilt);
    EXPECT_EQ((*opened)->report.dropped_entries, 0u);
    for (uint64_t number = 0; number + 1 < kPrefixes; ++number) {
      EXPECT_EQ(CheckPrefix(**opened, number), absl::OkStatus()) << version;
    }
  }
}

TEST_F(CompatTest, AFutureFormatIsRefusedByItsNameAndLeftAlone) {
  const std::string today = std::to_string(store::kFormatVersion);
  const std::string future = std::to_string(store::kFormatVersion + 1);
  const fs::path format = CopyOf(today) / "FORMAT";
  std::string text = Contents(copy_)[format];
  const std::string line = "version " + today;
  ASSERT_NE(text.find(line), std::string::npos);
  text.replace(text.find(line), line.size(), "version " + future);
  std::ofstream(format, std::ios::binary) << text;
  ExpectRefused(future);
}

// Found while writing this test: such a segment was taken for a damaged one of today's format, and
// could be removed.
TEST_F(CompatTest, AFutureSegmentIsRefusedThoughTheFormatFileIsLost) {
  const std::string today = std::to_string(store::kFormatVersion);
  for (const bool lost : {false, true}) {
    CopyOf(today);
    if (lost) fs::remove(copy_ / "FORMAT");
    for (const auto& segment : fs::directory_iterator(copy_ / "segments")) {
      std::fstream file(segment.path(), std::ios::binary | std::ios::in | std::ios::out);
      std::vector<char> page(store::kSegmentHeaderBytes);
      file.read(page.data(), static_cast<std::streamsize>(page.size()));
      store::SegmentHeader header;
      std::memcpy(&header, page.data(), sizeof(header));
      header.version = store::kFormatVersion + 1;
      store::EncodeSegmentHeader(header, {reinterpret_cast<uint8_t*>(page.data()), page.size()});
      file.seekp(0);
      file.write(page.data(), static_cast<std::streamsize>(page.size()));
    }
    ExpectRefused(std::to_string(store::kFormatVersion + 1));
  }
}

}  // namespace
}  // namespace cairn::compat
