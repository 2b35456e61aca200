// Goal: both catalogs keep the contract of catalog.h, and damage shows as DATA_LOSS, never as a
// wrong location.
#include "store/index/catalog.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <set>

#include "store/base/limits.h"
#include "store/index/catalog_codec.h"
#include "store/index/memory_catalog.h"
#include "store/index/rocks_catalog.h"

namespace cairn::store {
namespace {

CatalogEntry Entry(uint8_t number) {
  CatalogEntry entry;
  entry.meta.key.digest.bytes.fill(number);
  entry.meta.key.kind = number % 2 == 0 ? EntryKind::kRows : EntryKind::kCheckpoint;
  entry.meta.parts = {{.bytes = 100u + number, .xxh3 = 7}, {.bytes = 5, .xxh3 = 8}};
  entry.meta.attributes = std::string("a\0b", 3) + std::to_string(number);
  entry.location = {.segment = 3, .offset = 4096u * number, .bytes = 8192, .sequence = number};
  return entry;
}

bool Same(const CatalogEntry& a, const CatalogEntry& b) {
  return a.meta.key == b.meta.key && a.meta.parts == b.meta.parts &&
         a.meta.attributes == b.meta.attributes && a.location == b.location;
}

TEST(CatalogCodec, AValueThatDescribesNoEntryIsDamageThoughItsChecksumHolds) {
  const std::function<void(CatalogEntry&)> mistakes[] = {
      [](auto& e) { e.meta.key.kind = static_cast<EntryKind>(3); },
      [](auto& e) { e.meta.parts.clear(); },
      [](auto& e) { e.meta.parts[0].bytes = UINT32_MAX; },
      [](auto& e) { e.location.bytes = 0; },
      [](auto& e) { ++e.location.bytes; },
      [](auto& e) { ++e.location.offset; },
      [](auto& e) { e.location.offset = UINT64_MAX - 4095; },
  };
  CatalogEntry good = Entry(1);
  ASSERT_TRUE(DecodeEntry(EncodeEntryKey(good.meta.key), EncodeEntryValue(good)).ok());
  for (const auto& mistake : mistakes) {
    CatalogEntry entry = good;
    mistake(entry);
    const auto decoded = DecodeEntry(EncodeEntryKey(entry.meta.key), EncodeEntryValue(entry));
    EXPECT_TRUE(absl::IsDataLoss(decoded.status())) << decoded.status();
  }
}

class CatalogTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "/cairn_catalog_XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override {
    std::error_code error;
    std::filesystem::remove_all(folder_, error);
  }
  std::unique_ptr<Catalog> Make() {
    return GetParam() ? MakeRocksCatalog() : std::make_unique<MemoryCatalog>(disk_);
  }
  std::unique_ptr<Catalog> Open() {
    auto catalog = Make();
    const absl::Status opened = catalog->Open(folder_);
    EXPECT_TRUE(opened.ok()) << opened;
    return catalog;
  }

  std::string folder_;
  std::shared_ptr<MemoryCatalogDisk> disk_ = std::make_shared<MemoryCatalogDisk>();
};

INSTANTIATE_TEST_SUITE_P(Kinds, CatalogTest, ::testing::Bool(),
                         [](const auto& test) { return test.param ? "Rocks" : "Memory"; });

TEST_P(CatalogTest, KeepsWhatItIsGivenAlsoAfterReopening) {
  {
    const auto catalog = Open();
    CatalogBatch batch;
    for (uint8_t i = 1; i <= 5; ++i) batch.puts.push_back(Entry(i));
    batch.values = {{"name", "value"}};
    ASSERT_TRUE(catalog->Apply(batch, /*sync=*/true).ok());
    CatalogBatch erase;
    erase.erases = {Entry(2).meta.key, Entry(50).meta.key};
    erase.values = {{"name", "other"}};
    ASSERT_TRUE(catalog->Apply(erase, /*sync=*/false).ok());
  }
  const auto catalog = Open();
  const auto one = catalog->Get(Entry(1).meta.key);
  ASSERT_TRUE(one.ok() && one->has_value());
  EXPECT_TRUE(Same(**one, Entry(1)));
  EXPECT_FALSE((*catalog->Get(Entry(2).meta.key)).has_value());
  EntryKey other_kind = Entry(1).meta.key;
  other_kind.kind = EntryKind::kRows;
  EXPECT_FALSE((*catalog->Get(other_kind)).has_value());
  const EntryKey keys[] = {Entry(5).meta.key, Entry(2).meta.key, Entry(3).meta.key};
  const auto many = catalog->MultiGet(keys);
  ASSERT_EQ(many.size(), 3u);
  EXPECT_TRUE(Same(**many[0], Entry(5)));
  EXPECT_FALSE(many[1]->has_value());
  EXPECT_TRUE(Same(**many[2], Entry(3)));
  std::set<uint64_t> seen;
  ASSERT_TRUE(catalog
                  ->ForEach([&](const CatalogEntry& entry) {
                    return seen.insert(entry.location.sequence).second;
                  })
                  .ok());
  EXPECT_EQ(seen, (std::set<uint64_t>{1, 3, 4, 5}));
  int visited = 0;
  ASSERT_TRUE(catalog->ForEach([&](const CatalogEntry&) { return ++visited < 2; }).ok());
  EXPECT_EQ(visited, 2);
  EXPECT_EQ(*catalog->GetValue("name"), "other");
  EXPECT_EQ(*catalog->GetValue("none"), std::nullopt);
}

TEST_P(CatalogTest, ASnapshotShowsWhatThereWas) {
  const auto catalog = Open();
  CatalogBatch batch;
  batch.puts = {Entry(1), Entry(2)};
  ASSERT_TRUE(catalog->Apply(batch, /*sync=*/true).ok());
  const auto snapshot = catalog->Snapshot();
  CatalogBatch change;
  change.puts = {Entry(3)};
  change.erases = {Entry(1).meta.key};
  ASSERT_TRUE(catalog->Apply(change, /*sync=*/true).ok());
  const auto one = snapshot->Get(Entry(1).meta.key);
  ASSERT_TRUE(one.ok() && one->has_value());
  EXPECT_TRUE(Same(**one, Entry(1)));
  EXPECT_FALSE((*snapshot->Get(Entry(3).meta.key)).has_value());
  uint64_t sum = 0;
  ASSERT_TRUE(snapshot
                  ->ForEach([&](const CatalogEntry& entry) {
                    sum += entry.location.sequence;
                    return true;
                  })
                  .ok());
  EXPECT_EQ(sum, 3u);
}

TEST_P(CatalogTest, ReadOnlyNeitherMakesNorWrites) {
  EXPECT_EQ(Make()->OpenReadOnly(folder_).code(), absl::StatusCode::kNotFound);
  CatalogBatch batch;
  batch.puts = {Entry(1)};
  ASSERT_TRUE(Open()->Apply(batch, true).ok());
  const auto catalog = Make();
  ASSERT_TRUE(catalog->OpenReadOnly(folder_).ok());
  EXPECT_TRUE((*catalog->Get(Entry(1).meta.key)).has_value());
  EXPECT_EQ(catalog->Apply(batch, true).code(), absl::StatusCode::kFailedPrecondition);
}

TEST_P(CatalogTest, MovedAsideItStartsEmptyAndTheOldOneStays) {
  const auto catalog = Open();
  CatalogBatch batch;
  batch.puts = {Entry(1)};
  ASSERT_TRUE(catalog->Apply(batch, true).ok());
  for (int i = 1; i <= 2; ++i) {
    const auto aside = catalog->MoveAside(folder_);
    ASSERT_TRUE(aside.ok()) << aside.status();
    EXPECT_EQ(*aside, folder_ + "/catalog.damaged-" + std::to_string(i));
    EXPECT_EQ(std::filesystem::exists(*aside), GetParam());
    EXPECT_FALSE((*catalog->Get(Entry(1).meta.key)).has_value());
    ASSERT_TRUE(catalog->Apply(batch, true).ok());
  }
}

// Every file of a RocksDB catalog in turn is emptied, cut in half, filled with garbage, or removed:
// opening says DATA_LOSS, or what it then holds is right.
TEST(RocksCatalogTest, DamagedFilesAreDataLossOrHarmless) {
  const std::string root = ::testing::TempDir() + "/cairn_rocks_" + std::to_string(::getpid());
  std::error_code error;
  std::filesystem::create_directories(root + "/origin", error);
  for (int opened = 0; opened < 2; ++opened) {  // the second time the log becomes a table
    const auto catalog = MakeRocksCatalog();
    ASSERT_TRUE(catalog->Open(root + "/origin").ok());
    CatalogBatch batch;
    for (uint8_t i = 1; i <= 50; ++i) {
      batch.puts.push_back(Entry(static_cast<uint8_t>(i + 100 * opened)));
    }
    ASSERT_TRUE(catalog->Apply(batch, true).ok());
  }
  std::vector<std::string> names;
  for (const auto& file : std::filesystem::directory_iterator(root + "/origin/catalog", error)) {
    names.push_back(file.path().filename().string());
  }
  ASSERT_GE(names.size(), 4u);
  int losses = 0;
  for (const std::string& name : names) {
    if (name == "LOCK" || name == "LOG" || name.starts_with("LOG.old")) continue;
    for (const std::string way : {"empty", "half", "garbage", "gone"}) {
      const std::string copy = root + "/copy";
      std::filesystem::remove_all(copy, error);
      std::filesystem::copy(root + "/origin", copy, std::filesystem::copy_options::recursive,
                            error);
      const std::string path = copy + "/catalog/" + name;
      const auto size = std::filesystem::file_size(path, error);
      if (way == "empty") std::filesystem::resize_file(path, 0, error);
      if (way == "half") std::filesystem::resize_file(path, size / 2, error);
      if (way == "gone") std::filesystem::remove(path, error);
      if (way == "garbage") std::ofstream(path) << std::string(size, '\x5a');
      const auto catalog = MakeRocksCatalog();
      absl::Status status = catalog->Open(copy);
      if (status.ok()) {
        status = catalog->ForEach([&](const CatalogEntry& entry) {
          const auto number = static_cast<uint8_t>(entry.location.sequence);
          EXPECT_TRUE(Same(entry, Entry(number))) << name << " " << way;
          return true;
        });
      }
      EXPECT_TRUE(status.ok() || absl::IsDataLoss(status)) << name << " " << way << ": " << status;
      if (status.ok()) continue;
      ++losses;
      const auto aside = catalog->MoveAside(copy);
      EXPECT_TRUE(aside.ok()) << aside.status();
      CatalogBatch batch;
      batch.puts = {Entry(1)};
      EXPECT_TRUE(catalog->Apply(batch, true).ok());
    }
  }
  EXPECT_GT(losses, 4);
  std::filesystem::remove_all(root, error);
}

TEST(CatalogCodecTest, EveryFlippedBitOfAValueIsFound) {
  const CatalogEntry entry = Entry(9);
  const std::string key = EncodeEntryKey(entry.meta.key);
  const std::string value = EncodeEntryValue(entry);
  ASSERT_TRUE(Same(*DecodeEntry(key, value), entry));
  for (size_t bit = 0; bit < value.size() * 8; ++bit) {
    std::string flipped = value;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
    EXPECT_EQ(DecodeEntry(key, flipped).status().code(), absl::StatusCode::kDataLoss) << bit;
  }
  for (size_t bytes = 0; bytes < value.size(); ++bytes) {
    EXPECT_FALSE(DecodeEntry(key, value.substr(0, bytes)).ok());
  }
  EXPECT_FALSE(DecodeEntry(EncodeEntryKey(Entry(8).meta.key), value).ok());
}

TEST(MemoryCatalogTest, ACrashKeepsSyncedBatchesAndAPrefixOfTheRest) {
  std::set<size_t> kept;
  for (uint64_t seed = 0; seed < 40; ++seed) {
    auto disk = std::make_shared<MemoryCatalogDisk>();
    MemoryCatalog catalog(disk);
    ASSERT_TRUE(catalog.Open("/d").ok());
    for (uint8_t i = 1; i <= 4; ++i) {
      CatalogBatch batch;
      batch.puts = {Entry(i)};
      ASSERT_TRUE(catalog.Apply(batch, /*sync=*/i == 2).ok());
    }
    SeededRandom random(seed);
    disk->Crash(random);
    size_t count = 0;
    while (count < 4 && catalog.Get(Entry(static_cast<uint8_t>(count + 1)).meta.key)->has_value()) {
      ++count;
    }
    kept.insert(count);
  }
  EXPECT_EQ(kept, (std::set<size_t>{2, 3, 4}));
}

// Found by bit_flips: a checksum that fits says nothing of what a writer meant.
TEST(CatalogCodecTest, AnImpossibleRecordIsRefused) {
  CatalogEntry good;
  good.meta.key.kind = EntryKind::kRows;
  good.meta.parts = {{.bytes = 5000, .xxh3 = 1}};
  good.location = {.segment = 1, .offset = 4096, .bytes = 3 * kIoAlignment, .sequence = 1};
  const auto decode = [](const CatalogEntry& entry) {
    return DecodeEntry(EncodeEntryKey(entry.meta.key), EncodeEntryValue(entry)).status();
  };
  EXPECT_TRUE(decode(good).ok()) << decode(good);
  CatalogEntry bad = good;
  bad.meta.key.kind = static_cast<EntryKind>(7);
  EXPECT_TRUE(absl::IsDataLoss(decode(bad)));
  bad = good;
  bad.meta.parts.clear();
  EXPECT_TRUE(absl::IsDataLoss(decode(bad)));
  bad = good;
  bad.location.offset = 4097;
  EXPECT_TRUE(absl::IsDataLoss(decode(bad)));
  bad = good;
  bad.location.bytes = 1ull << 40;
  EXPECT_TRUE(absl::IsDataLoss(decode(bad)));
}

}  // namespace
}  // namespace cairn::store
